"""Outliers: exactly the largest weights survive in full, the rest is rounded as if they were not there."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from trainlarge.compression.methods.outliers import split
from trainlarge.compression.methods.uniform import quantize
from trainlarge.config.quantize import Outliers, Uniform
from trainlarge.models.weight_error import relative_squared_error

finite = st.floats(-100, 100, width=32) | st.just(0.0)
matrices = arrays.arrays("f4", arrays.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=finite).map(
    torch.from_numpy
)
shares = st.floats(0, 0.9)


@given(matrices, shares, st.integers(2, 8))
def test_the_largest_survive_and_the_rest_is_rounded_alone(weights: Tensor, share: float, bits: int) -> None:
    kept = round(share * weights.numel())
    order = sorted(range(weights.numel()), key=lambda i: (abs(float(weights.view(-1)[i])), i))
    large = torch.zeros(weights.numel(), dtype=torch.bool)
    large[order[weights.numel() - kept :]] = True
    large = large.view(weights.shape)
    found = split(weights, Outliers(bits, share=share)).dense()
    assert torch.equal(found[large], weights[large])
    rest = quantize(weights.masked_fill(large, 0.0), Uniform(bits)).dense()
    assert torch.equal(found[~large], rest[~large])


def test_one_per_cent_halves_the_error_of_heavy_tails() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((200, 500), generator=generator) / torch.rand((200, 500), generator=generator).sqrt()
    plain, kept = (
        relative_squared_error({"w": weights}, {"w": form.dense()})["w"]
        for form in (quantize(weights, Uniform(4)), split(weights, Outliers(4, share=0.01)))
    )
    assert kept < plain / 2


def test_ideal_bits_count_the_outliers_in_full() -> None:
    form = split(torch.randn(100, 100), Outliers(4, share=0.01))
    assert form.bits * form.nonzero == 32 * 100 + 4 * 9900
