"""k-means codebooks: Lloyd-Max on normal weights, never worse than its start, exact zeros."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from trainlarge.compression.methods.kmeans import cluster
from trainlarge.config.quantize import KMeans
from trainlarge.models.weight_error import relative_squared_error

finite = st.floats(-100, 100, width=32) | st.just(0.0)
matrices = arrays.arrays("f4", arrays.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=finite).map(
    torch.from_numpy
)
methods = st.builds(KMeans, bits=st.integers(1, 4), granularity=st.sampled_from(["tensor", "row"]))


@given(methods, matrices)
def test_zeros_stay_zero_and_every_weight_takes_its_nearest_value(method: KMeans, weights: Tensor) -> None:
    form = cluster(weights, method)
    found = form.dense()
    assert (found[weights == 0] == 0).all()
    rows = len(form.book)
    distances = (weights.double().reshape(rows, -1, 1) - form.book.double().unsqueeze(1)).abs()
    nearest = distances.amin(2).view(weights.shape)
    torch.testing.assert_close((found - weights).double().abs(), nearest, rtol=1e-4, atol=1e-4)


@given(matrices)
def test_few_distinct_weights_are_kept(weights: Tensor) -> None:
    signs = weights.sign()
    assert torch.equal(cluster(signs, KMeans(2, "row")).dense(), signs)


@given(st.integers(1, 4), matrices)
def test_rows_are_tensors_of_their_own(bits: int, weights: Tensor) -> None:
    together = cluster(weights, KMeans(bits, "row")).dense()
    for row, values in zip(together, weights, strict=True):
        assert torch.equal(row, cluster(values.unsqueeze(0), KMeans(bits, "tensor")).dense()[0])


@pytest.mark.parametrize(("bits", "error"), [(1, 1 - 2 / torch.pi), (2, 0.11748), (3, 0.03454), (4, 0.009497)])
def test_normal_weights_get_the_quantizer_of_lloyd_and_max(bits: int, error: float) -> None:
    """Errors of Max 1960, table I."""
    weights = torch.randn((1000, 1000), generator=torch.Generator().manual_seed(1))
    found = cluster(weights, KMeans(bits)).dense()
    assert relative_squared_error({"w": weights}, {"w": found})["w"] == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_data_types_keep_theirs(dtype: torch.dtype) -> None:
    weights = torch.randn(50, 8).to(dtype)
    found = cluster(weights, KMeans(8)).dense()
    assert found.dtype == dtype
    torch.testing.assert_close(found, weights, rtol=0.05, atol=0.05)
