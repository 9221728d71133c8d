"""The sizes of XTC (Wu et al. 2022, arXiv 2206.01859), and what its distillation is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from trainlarge.commands.recipe_costs import PACKED_HEADER_BYTES, packed_bytes
from trainlarge.compression import Binary, Recipe
from trainlarge.models.family import Head
from trainlarge.models.shape import Shape
from trainlarge.sweep.store import CellFolder

MB = 2**20
"""The paper's 418 MB of BERT-base are so many."""


def test_the_sizes_of_the_paper_by_formula() -> None:
    """418 MB to 8.4 MB, 50 times: six layers of the real BERT-base at 1 bit, with vectors of 32."""
    base, six = (Shape("bert", 768, depth, 12, 4, 30522, 512) for depth in (12, 6))
    dense = packed_bytes(base, Recipe(), Head.SEQUENCE_LABEL) - PACKED_HEADER_BYTES
    assert round(dense / MB) == 418
    whole, half = (packed_bytes(shape, Recipe(quantize=Binary()), Head.SEQUENCE_LABEL) for shape in (base, six))
    assert dense / whole == pytest.approx(32, rel=1e-3)
    # The forecast counts every parameter at the bits of a matrix; norms and biases stay floats.
    vectors = _vectors(layers=6)
    small = half + vectors * (4 - 1 / 8)
    assert small / MB == pytest.approx(8.4, rel=0.03)
    assert 50 <= dense / small < 51


def _vectors(layers: int) -> int:
    """Parameters of norms and biases of the library's own model."""
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig(num_hidden_layers=layers))
    return sum(one.numel() for one in model.parameters() if one.ndim == 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_bit_with_distillation_is_far_better_than_one_bit_after_training(
    seed: int, tiny: Callable[..., Any], compose: Callable[..., Any], run_here: Callable[..., list[CellFolder]]
) -> None:
    """All layers, 1-bit weights and 8-bit inputs, from the first of 100 steps; the parent trained for 400."""
    exact = ("impl.precision=fp32", "impl.threads=1")
    [parent] = run_here("train", [tiny(*exact, f"seed={seed}", "arch.width=32", "arch.depth=4", "budget=400 steps")])
    common = ("study=tiny", f"checkpoint={parent.id}", "tracking=none", "impl.device=cpu", *exact)
    one_bit = ("quantize=binary", "activations=dynamic", "activations.symmetric=true")
    training = ("recover=distill", "recover.budget=100 steps", "recover.quantize_aware=true")
    after, distilled = run_here(
        "compress", [compose("compress", *common, *one_bit), compose("compress", *common, *one_bit, *training)]
    )
    lost, less = (folder.record_data()["loss_increase"] for folder in (after, distilled))
    assert abs(after.packed.stat().st_size - distilled.packed.stat().st_size) < 0.05 * after.packed.stat().st_size
    assert less < 0.25 * lost, "of what rounding the same checkpoint to 1 bit loses, at equal bytes"
