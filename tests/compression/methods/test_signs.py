"""Binary and ternary weights: the rules, closed forms for normal weights, zeros."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from trainlarge.compression.methods.signs import binarize, ternarize
from trainlarge.config.quantize import Binary, Ternary
from trainlarge.models.weight_error import relative_squared_error

finite = st.floats(-100, 100, width=32) | st.just(0.0)
matrices = arrays.arrays("f4", arrays.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=finite).map(
    torch.from_numpy
)


@given(matrices)
def test_binary_is_the_sign_times_the_mean_magnitude(weights: Tensor) -> None:
    kept = weights != 0
    mean = float(weights[kept].double().abs().mean()) if kept.any() else 0.0
    torch.testing.assert_close(binarize(weights, Binary()).dense(), weights.sign() * mean, rtol=1e-6, atol=1e-30)


@given(matrices)
def test_ternary_is_the_seven_tenths_rule(weights: Tensor) -> None:
    threshold = (0.7 * weights.abs().double().mean()).float()
    kept = weights.abs() > threshold
    mean = float(weights[kept].double().abs().mean()) if kept.any() else 0.0
    torch.testing.assert_close(ternarize(weights, Ternary()).dense(), weights.sign() * kept * mean, rtol=1e-5, atol=0)


@settings(deadline=None, max_examples=50)
@given(matrices, st.integers(1, 7), st.sampled_from([(binarize, Binary), (ternarize, Ternary)]))
def test_groups_are_tensors_of_their_own(weights: Tensor, size: int, way: tuple) -> None:
    function, kind = way
    columns = weights[0].numel()
    together = function(weights, kind("group", size)).dense().view(-1, columns)
    for begin in range(0, columns, size):
        alone = function(weights.view(-1, columns)[:, begin : begin + size], kind("row")).dense()
        torch.testing.assert_close(together[:, begin : begin + size], alone, rtol=1e-6, atol=0)


def test_errors_of_normal_weights(reference: Path) -> None:
    weights = torch.randn((1000, 1000), generator=torch.Generator().manual_seed(1))
    with (reference / "gaussian_error.csv").open() as file:
        rows = {row["scheme"].split()[0]: row for row in csv.DictReader(file)}
    for name, stored in (("binary", binarize(weights, Binary())), ("ternary", ternarize(weights, Ternary()))):
        error = relative_squared_error({"w": weights}, {"w": stored.dense()})["w"]
        assert error == pytest.approx(float(rows[name]["relative_squared_error"]), rel=0.005)
        zeros = float((stored.dense() == 0).double().mean())
        assert zeros == pytest.approx(float(rows[name]["sparsity"]), abs=0.002)
        assert stored.bits == int(rows[name]["bits"])
