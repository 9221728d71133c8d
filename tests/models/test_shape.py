"""Which shapes exist, and what a refused one is told."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.arch import ArchConfig
from trainlarge.errors import UserError
from trainlarge.models.shape import Shape, check_sequence_length, default_heads

ARCH = {"name": "modern", "width": 64, "depth": 2, "heads": None, "ffn_ratio": 2.0, "positions": 64}


def shape(vocab_size: int = 100, **changes: object) -> Shape:
    return Shape.from_config(ArchConfig(**{**ARCH, **changes}), vocab_size)


@pytest.mark.parametrize(
    ("width", "heads"), [(1, 1), (6, 1), (7, 1), (64, 2), (128, 2), (160, 2), (200, 2), (256, 4), (768, 12)]
)
def test_default_heads_are_of_64_channels_and_at_least_two_where_they_divide(width: int, heads: int) -> None:
    assert default_heads(width) == heads


@given(st.integers(1, 2048))
def test_default_heads_make_a_shape_of_any_even_width_and_of_any_width_without_rotation(width: int) -> None:
    built = shape(name="modern" if width % 2 == 0 else "roberta", width=width)
    assert built.heads * built.head_width == width


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"heads": 3}, "arch.heads=3 is not valid: must divide arch.width=64 with an even number of channels per head ("
                       "1, 2, 4, 8, 16, 32"),
        ({"name": "roberta", "heads": 5}, "arch.heads=5 is not valid: must divide arch.width=64 (1, 2, 4, 8, 16, 32,"),
        ({"heads": 64}, "arch.heads=64 is not valid: must divide"),
        ({"width": 7}, "arch.width=7 is not valid: must be an even number for arch.name=modern"),
        ({"width": 0}, "arch.width=0 is not valid: must be a whole number of at least 1"),
        ({"width": 2.5}, "arch.width=2.5 is not valid: must be a whole number of at least 1"),
        ({"depth": 0}, "arch.depth=0 is not valid: must be a whole number of at least 1"),
        ({"depth": True}, "arch.depth=true is not valid: must "),
        ({"heads": 0}, "arch.heads=0 is not valid: must be a whole number of at least 1"),
        ({"positions": 0}, "arch.positions=0 is not valid: must be a whole number of at least 1"),
        ({"vocab_size": 0}, "data.vocab_size=0 is not valid: must be a whole number of at least 1"),
        ({"ffn_ratio": 2.01}, "arch.ffn_ratio=2.01 is not valid: must be a number whose product with arch.width=64"),
        ({"ffn_ratio": 0}, "arch.ffn_ratio=0 is not valid: must "),
        ({"dropout": 1.0}, "arch.dropout=1.0 is not valid: must be a number in [0, 1)"),
        ({"name": "gpt"}, "arch.name=gpt is not valid: must be one of bert, llama, modern, roberta"),
    ],
)  # fmt: skip
def test_impossible_shapes_are_refused_in_one_line_that_names_the_key(changes: dict[str, object], line: str) -> None:
    with pytest.raises(UserError) as refused:
        shape(**changes)  # type: ignore[arg-type]
    assert str(refused.value).startswith(line)


def test_a_ratio_that_is_whole_up_to_rounding_is_taken() -> None:
    assert shape(width=96, heads=2, ffn_ratio=8 / 3).ffn_width == 256


@pytest.mark.parametrize(("name", "longest"), [("modern", 64), ("roberta", 63)])
def test_rows_longer_than_the_positions_are_refused(name: str, longest: int) -> None:
    check_sequence_length(shape(name=name), longest)
    with pytest.raises(UserError, match=f"arch.positions=64 is not valid: must be at least 65 with .*={longest + 1}"):
        check_sequence_length(shape(name=name), longest + 1)


def test_describing_a_shape_does_not_load_torch() -> None:
    modules = "trainlarge.models.shape, trainlarge.models.counts, trainlarge.models.flops"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
