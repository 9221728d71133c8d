"""Low-rank repair: the best product of its rank, never worse than rounding, exact zeros, bytes by formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from trainlarge.compression.methods.repaired import factors, repair
from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.encodings import smallest
from trainlarge.compression.stored.repaired import Repaired, product
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.quantize import LowRankRepair, Uniform

finite = st.floats(-100, 100, width=32) | st.just(0.0)
matrices = arrays.arrays("f4", arrays.array_shapes(min_dims=2, max_dims=3, max_side=8), elements=finite).map(
    torch.from_numpy
)


@settings(deadline=None)
@given(matrices, st.integers(2, 8), st.integers(1, 9), st.integers(1, 3))
def test_it_is_never_worse_than_rounding_and_zeros_stay_zero(
    weights: Tensor, bits: int, rank: int, rounds: int
) -> None:
    found = repair(weights, LowRankRepair(bits, rank=rank, rounds=rounds))
    assert _error(found, weights) <= _error(quantize(weights, Uniform(bits)), weights)
    assert not found.dense()[weights == 0].any()


@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_what_is_left_of_the_error_are_the_smallest_singular_values(shape: tuple[int, int]) -> None:
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    error = weights - quantize(weights, Uniform(3)).dense()
    expected = float(torch.linalg.svdvals(error.double())[8:].square().sum())
    found = repair(weights, LowRankRepair(3, rank=8))
    assert isinstance(found, Repaired)
    assert _error(found, weights) == pytest.approx(expected, rel=1e-3)


def test_an_error_of_the_rank_is_repaired_to_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    error = torch.randn((50, 3), generator=generator) @ torch.randn((3, 30), generator=generator)
    assert (product(*factors(error, 3)) - error).abs().max() < 0.01
    assert (product(*factors(error.T, 5)) - error.T).abs().max() < 0.01


def test_more_rounds_have_less_error_on_rows_of_one_pattern() -> None:
    """As weights of large common components, which rounding spreads over all codes."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((64, 48), generator=generator)
    weights += 10 * torch.randn((64, 1), generator=generator) * torch.randn((1, 48), generator=generator)
    errors = [_error(repair(weights, LowRankRepair(2, rank=2, rounds=rounds)), weights) for rounds in (1, 3, 10)]
    assert errors[0] > 1.05 * errors[1] and errors[1] >= errors[2]


def test_the_factors_count_in_the_file_and_in_the_ideal_bits() -> None:
    weights = torch.randn((64, 48), generator=torch.Generator().manual_seed(0))
    plain, found = quantize(weights, Uniform(3)), repair(weights, LowRankRepair(3, rank=4))
    assert smallest(found).name == "repaired"
    assert smallest(found).bytes(found) == smallest(plain).bytes(plain) + 2 * 4 * (64 + 48)
    assert found.bits * found.nonzero == 3 * 64 * 48 + 16 * 4 * (64 + 48)


def test_tensors_of_three_dimensions_are_rounded_alone() -> None:
    assert type(repair(torch.randn(4, 5, 6), LowRankRepair(3))) is Affine


def _error(stored: StoredTensor, weights: Tensor) -> float:
    return float((stored.dense() - weights).double().square().sum())
