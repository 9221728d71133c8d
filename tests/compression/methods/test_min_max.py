"""Quantization from the smallest to the largest weight: formula, error, zeros, bytes, what prunes or cuts it later."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Magnitude, MinMax, Recipe, compress, load_packed_weights, save_packed
from trainlarge.compression.methods.min_max import quantize
from trainlarge.compression.stored.encodings import encoding_named, fitting, smallest
from trainlarge.compression.stored.offset import Offset
from trainlarge.config.structure import Neurons
from trainlarge.models.weight_error import relative_squared_error

finite = st.floats(-100, 100, width=32) | st.just(0.0)
matrices = arrays.arrays("f4", arrays.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=finite).map(
    torch.from_numpy
)
methods = st.builds(
    MinMax, st.integers(2, 8), st.sampled_from(["tensor", "row", "group"]), group_size=st.integers(1, 7)
)


def test_the_formula() -> None:
    """Li et al. 2020, section 4: step (max - min) / 3, values min + step * code; the range does not reach 0."""
    stored = quantize(torch.tensor([[1.0, 1.4, 1.6, 2.5], [-3.0, -2.9, 1.0, 3.0]]), MinMax(2))
    assert stored.codes.tolist() == [[0, 1, 1, 3], [0, 0, 2, 3]]
    assert stored.scale.tolist() == [[0.5], [2.0]] and stored.offset.tolist() == [[1.0], [-3.0]]
    assert stored.dense().tolist() == [[1.0, 1.5, 1.5, 2.5], [-3.0, -3.0, 1.0, 3.0]]


def test_the_range_of_the_weights_that_are_left() -> None:
    """Zeros limit no range, and 0 is no value: the mask keeps them."""
    stored = quantize(torch.tensor([[0.0, 1.0, 2.5, 0.0], [0.0, 0.0, 0.0, 0.0]]), MinMax(2))
    assert stored.dense().tolist() == [[0.0, 1.0, 2.5, 0.0], [0.0] * 4]
    assert (stored.nonzero, stored.mask().tolist()) == (2, [False, True, True] + [False] * 5)


@settings(deadline=None)
@given(methods, matrices)
def test_zeros_stay_zero_and_errors_are_at_most_half_a_step(method: MinMax, weights: Tensor) -> None:
    stored = quantize(weights, method)
    found = stored.dense()
    assert (found[weights == 0] == 0).all() and int(stored.codes.max()) < 2**method.bits
    assert stored.nonzero == int(torch.count_nonzero(weights))
    step = (
        stored.scale.amax()
        if method.granularity == "tensor"
        else stored.scale.amax(1).view(-1, *[1] * (weights.ndim - 1))
    )
    assert ((found - weights).abs() <= step / 2 + 1e-5 * weights.abs().max() + 1e-37).all()


@settings(deadline=None)
@given(methods, matrices)
def test_every_encoding_gives_back_the_same_bits(method: MinMax, weights: Tensor) -> None:
    stored = quantize(weights, method)
    assert "offset" in {encoding.name.rpartition("_")[2] for encoding in fitting(stored)}
    for encoding in fitting(stored):
        parts = encoding.encode(stored)
        assert {name: (part.dtype, tuple(part.shape)) for name, part in parts.items()} == {
            name: (part.dtype, part.shape) for name, part in encoding.layout(stored).items()
        }
        again = encoding_named(encoding.name).decode(encoding.note(stored), parts)
        assert torch.equal(again.dense().view(torch.int32), stored.dense().view(torch.int32)), encoding.name


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 8), st.integers(1, 7), matrices)
def test_groups_are_rows_of_their_own(bits: int, size: int, weights: Tensor) -> None:
    rows = weights.reshape(len(weights), -1)
    together = quantize(weights, MinMax(bits, "group", size)).dense().view_as(rows)
    for begin in range(0, rows.shape[1], size):
        alone = quantize(rows[:, begin : begin + size], MinMax(bits)).dense()
        assert torch.equal(together[:, begin : begin + size], alone)


@pytest.mark.parametrize("constant", [3.0, -3.0, 1e-45, 3e38])
def test_constant_rows_survive(constant: float) -> None:
    weights = torch.tensor([[constant] * 4, [1.0, -1.0, 0.0, 0.5]])
    assert torch.equal(quantize(weights, MinMax(4)).dense()[0], weights[0])


@pytest.mark.parametrize(("bits", "error", "deviation"), [(8, 1.214e-4, 0.088e-4), (6, 1.988e-3, 0.145e-3),
                                                          (4, 3.508e-2, 0.256e-2)])  # fmt: skip
def test_gaussian_error(bits: int, error: float, deviation: float) -> None:
    """Relative squared error of 10^6 normal weights in one range: step^2 / 12, with the range of the draw."""
    weights = torch.randn((1000, 1000), generator=torch.Generator().manual_seed(1))
    stored = quantize(weights, MinMax(bits, "tensor"))
    found = relative_squared_error({"w": weights}, {"w": stored.dense()})["w"]
    assert found == pytest.approx(float(stored.scale) ** 2 / 12, rel=0.02)
    assert found == pytest.approx(error, abs=4 * deviation)


def test_gaussian_errors_are_those_of_the_reference(reference: Path) -> None:
    with (reference / "gaussian_error.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scheme"].startswith("uniform min/max")]
    assert [(int(row["bits"]), float(row["relative_squared_error"])) for row in rows] == [
        (8, 1.214e-4), (6, 1.988e-3), (4, 3.508e-2)
    ]  # fmt: skip


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_bytes_of_pruned_weights_count_their_index(modern: PreTrainedModel, sparsity: float, tmp_path: Path) -> None:
    compressed = compress(modern, Recipe(Magnitude(sparsity) if sparsity else None, MinMax(4)))
    save_packed(tmp_path / "packed", compressed)
    assert (tmp_path / "packed").stat().st_size == compressed.sizes.file_bytes
    again = load_packed_weights(tmp_path / "packed")
    assert all(torch.equal(again[name], tensor) for name, tensor in compressed.weights.items())
    quantized = {name: tensor for name, tensor in compressed.packed.stored.items() if isinstance(tensor, Offset)}
    assert set(quantized) == compressed.left.matrices
    for name, stored in quantized.items():
        left, total = stored.nonzero, stored.shape.numel()
        scales = 8 * stored.scale.numel()
        codes = math.ceil(left * 4 / 8)
        entropy = 0 if left in (0, total) else (math.log(math.comb(total, left)) / math.log(2)) / 8
        size, encoding = compressed.packed.payload_bytes(name), compressed.packed.encodings[name]
        if encoding.name.endswith("offset"):
            assert size >= codes + scales + entropy - 1
        else:
            assert size >= 4 * left + entropy - 1, "floats, where they take less than scales"
            assert size <= codes + scales + total
        assert left == total or smallest(stored).name != "offset"


def test_pruned_or_cut_later_it_stays_codes(modern: PreTrainedModel) -> None:
    batches = [{"input_ids": torch.randint(3, 120, (2, 8)), "labels": torch.randint(3, 120, (2, 8))}]
    rounded = compress(modern, Recipe(quantize=MinMax(4)))
    later = compress(modern, Recipe(Magnitude(0.5), MinMax(4), order=["quantize", "prune"]))
    for name in rounded.left.matrices:
        stored, before = later.packed.stored[name], rounded.packed.stored[name]
        assert isinstance(stored, Offset) and isinstance(before, Offset)
        assert torch.equal(stored.dense(), before.dense().masked_fill(stored.dense() == 0, 0.0))
        assert stored.nonzero == int(torch.count_nonzero(stored.dense()))
    cut = compress(
        modern, Recipe(quantize=MinMax(4), structure=Neurons(0.5), order=["quantize", "structure"]), calibration=batches
    )
    kinds = {type(stored) for name, stored in cut.packed.stored.items() if name in cut.left.matrices}
    assert kinds == {Offset} and cut.sizes.ideal_bytes < rounded.sizes.ideal_bytes


def test_half_precision() -> None:
    weights = torch.randn(8, 16).bfloat16()
    found = quantize(weights, MinMax(8)).dense()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, weights, rtol=0.01, atol=0.03)
