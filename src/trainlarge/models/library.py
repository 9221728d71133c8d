"""Architectures of transformers that are no family, as a start for tasks that label rows.

All that is known of one is its Hugging Face configuration. It is frozen with the cell, so that parameters and FLOPs
are those of the same model wherever its folder is then. Counts and FLOPs are taken off the library's own model
(:mod:`trainlarge.models.measured`), which this file imports where they are asked for: no torch here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from trainlarge.config.arch import ArchConfig
from trainlarge.config.canonical import canonical_json
from trainlarge.models.family import Family, FamilyHead, Head, ParameterCounts, StoredShape
from trainlarge.models.foreign import counts_from_padding, without_code
from trainlarge.models.layout import LayerLayout, UnitLayout

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from trainlarge.models.shape import Shape

LIBRARY_STD = 0.02
"""Deviation of initial weights where a configuration does not say it."""
_INNER = ("intermediate_size", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "d_inner", "d_ff", "n_inner")
"""What architectures call the inner width of a feed-forward network."""
_USUAL_RATIO = 4.0
"""Inner width in widths where a configuration does not say it, as in GPT-2."""
_DROPOUT = ("hidden_dropout_prob", "hidden_dropout", "dropout", "resid_pdrop", "dropout_rate")
"""What architectures call the dropout of hidden states."""
_UNKNOWN = UnitLayout((), 1, "")


def library_config(text: str) -> PretrainedConfig:
    """The Hugging Face configuration that JSON data describe.

    Raises:
        ValueError: it is of an architecture that the installed library does not know, or asks for code from elsewhere.
    """
    from transformers import AutoConfig

    written = without_code(json.loads(text))
    model_type = str(written.pop("model_type", None))
    config: PretrainedConfig = AutoConfig.for_model(model_type, **written)
    return config


def frozen_config(written: Mapping[str, object]) -> str:
    """The text by which the content of a ``config.json`` is kept.

    Raises:
        ValueError: it asks for code, an attention or a size that is not allowed here.
    """
    return canonical_json(without_code(written))


@lru_cache(maxsize=256)
def library_arch(text: str) -> tuple[ArchConfig, int]:
    """The group ``arch`` that describes a model as far as its configuration does, and the entries of its vocabulary.

    ``positions`` are the tokens of its longest row; None where it has no limit. The model is made by the configuration,
    and not by this group.

    Raises:
        UserError: on ``checkpoint``, when the architecture cannot label rows.
        ValueError: it says no width, depth or number of heads, or what ``library_config`` refuses.
    """
    config = library_config(text)
    _class_of(config)
    width, depth, heads, vocabulary = (
        _size(config, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    )
    arch = ArchConfig(
        name=LIBRARY.name,
        width=width,
        depth=depth,
        heads=heads,
        ffn_ratio=next(_numbers(config, _INNER), _USUAL_RATIO * width) / width,
        positions=longest_row(config),
        dropout=next((value for value in _numbers(config, _DROPOUT) if value < 1), 0.0),
        tied=bool(getattr(config, "tie_word_embeddings", True)),
        init_std=next(_numbers(config, ("initializer_range",)), LIBRARY_STD),
    )
    return arch, vocabulary


@lru_cache(maxsize=256)
def library_segments(text: str) -> int:
    """Texts of a row that such a model can tell apart by vectors of their own."""
    return max(1, getattr(library_config(text), "type_vocab_size", 1))


def _size(config: PretrainedConfig, name: str) -> int:
    size = getattr(config, name, None)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"its configuration says no {name}")
    return size


def _numbers(config: PretrainedConfig, names: tuple[str, ...]) -> Iterator[float]:
    """Positive numbers of a configuration under any of these names."""
    values = (getattr(config, name, None) for name in names)
    return (float(value) for value in values if isinstance(value, (int, float)) and value > 0)


def longest_row(config: PretrainedConfig) -> int | None:
    """Tokens of the longest row that a model has positions for; None where its configuration does not say."""
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    return positions - ((config.pad_token_id or 0) + 1 if counts_from_padding(config.model_type) else 0)


def _config(shape: Shape, _head: Head) -> PretrainedConfig:
    return library_config(shape.config or "{}")


def _counts(shape: Shape) -> ParameterCounts:
    from trainlarge.models.measured import body_counts

    return body_counts(shape)


def _head_counts(shape: Shape) -> ParameterCounts:
    from trainlarge.models.measured import head_counts

    return head_counts(shape)


def _row_flops(shape: Shape, sequence_length: int) -> int:
    from trainlarge.models.measured import row_flops

    return row_flops(shape, sequence_length)


def has_eager_alone(shape: Shape) -> bool:
    """Whether such an architecture has no attention of the library's but the plain one."""
    return not _class_of(library_config(shape.config or "{}"))._supports_sdpa


def _class_of(config: PretrainedConfig) -> type[PreTrainedModel]:
    from trainlarge.models.build import library_class

    return library_class(config, Head.SEQUENCE_LABEL)


LIBRARY = Family(
    name="library",
    model_type="",
    is_causal=False,
    rotary=False,
    positions_from_padding=False,
    ffn_matrices=0,
    layout=LayerLayout("", "", heads=_UNKNOWN, neurons=_UNKNOWN),
    config=_config,
    counts=_counts,
    stored=StoredShape("", is_tied=True, fixed={}),
    heads={
        Head.SEQUENCE_LABEL: FamilyHead(
            model_class=None, counts=_head_counts, output="", output_norm=None, has_dense=False, flops=_row_flops
        )
    },
)
"""Stands for the family of every such architecture. It is no choice of ``arch``: a folder brings it."""
