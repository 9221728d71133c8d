"""Uniform quantization: error, number of values, exact zeros, degenerate ranges."""

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

from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.sizes import entropy_bits
from trainlarge.config.quantize import Uniform
from trainlarge.models.weight_error import relative_squared_error

methods = st.builds(
    Uniform,
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "row"]),
    symmetric=st.booleans(),
)
granularities = st.sampled_from(["tensor", "row", "group"])
methods_of_every_range = st.builds(
    Uniform,
    bits=st.integers(2, 8),
    granularity=granularities,
    symmetric=st.booleans(),
    group_size=st.integers(1, 7),
    range=st.sampled_from(["minmax", "percentile", "mse", "sigma"]),
    percentile=st.floats(51, 100),
    sigma=st.floats(0.1, 20),
)
finite = st.floats(-100, 100, width=32) | st.just(0.0)
matrices = arrays.arrays("f4", arrays.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=finite).map(
    torch.from_numpy
)


@given(methods, matrices)
def test_zeros_stay_zero_and_codes_fit(method: Uniform, weights: Tensor) -> None:
    stored = quantize(weights, method)
    assert (stored.dense()[weights == 0] == 0).all()
    assert int(stored.codes.max()) < 2**method.bits - method.symmetric


@given(methods, matrices)
def test_error_is_at_most_half_a_step(method: Uniform, weights: Tensor) -> None:
    stored = quantize(weights, method)
    error = _grouped(stored.dense() - weights, stored).abs()
    # Half a step, and the rounding of float32 on top: that of the weight, and of the step times the largest code.
    slack = 1e-6 * _grouped(weights, stored).abs().amax(1, keepdim=True) + 1e-37
    assert (error <= stored.scale / 2 + slack).all()


@given(methods, matrices)
def test_at_most_two_to_the_bits_values_in_a_group(method: Uniform, weights: Tensor) -> None:
    stored = quantize(weights, method)
    assert all(len(group.unique()) <= 2**method.bits for group in _grouped(stored.dense(), stored))


@given(methods, matrices)
def test_rounding_twice_is_rounding_once(method: Uniform, weights: Tensor) -> None:
    once = quantize(weights, method).dense()
    torch.testing.assert_close(quantize(once, method).dense(), once, rtol=1e-5, atol=1e-36)


@given(st.integers(2, 8), st.booleans(), matrices)
def test_rows_are_tensors_of_their_own(bits: int, symmetric: bool, weights: Tensor) -> None:
    together = quantize(weights, Uniform(bits, "row", symmetric)).dense()
    for row, values in zip(together, weights, strict=True):
        assert torch.equal(row, quantize(values.unsqueeze(0), Uniform(bits, "tensor", symmetric)).dense()[0])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_gaussian_error_is_step_squared_over_twelve(bits: int, symmetric: bool) -> None:
    weights = _normal()
    stored = quantize(weights, Uniform(bits, "tensor", symmetric))
    error = (stored.dense() - weights).double().square().mean()
    assert float(error) == pytest.approx(float(stored.scale) ** 2 / 12, rel=0.02)


def test_gaussian_error_agrees_with_the_reference(reference: Path) -> None:
    weights = _normal()
    with (reference / "gaussian_error.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scheme"].startswith("uniform")]
    assert len(rows) == 3
    for row in rows:
        rounded = quantize(weights, Uniform(int(row["bits"]), "tensor")).dense()
        error = relative_squared_error({"w": weights}, {"w": rounded})["w"]
        # Between draws the range, and with it the error, varies by 7 %.
        assert error == pytest.approx(float(row["relative_squared_error"]), abs=4 * float(row["sd_over_draws"]))


def test_step_is_the_range_over_the_number_of_steps() -> None:
    stored = quantize(torch.tensor([[-1.0, 0.2, 2.0]]), Uniform(2))
    assert (float(stored.scale), int(stored.zero_point)) == (1.0, 1)
    assert stored.dense().tolist() == [[-1.0, 0.0, 2.0]]
    symmetric = quantize(torch.tensor([[-1.0, 0.2, 2.0]]), Uniform(2, symmetric=True))
    assert (float(symmetric.scale), symmetric.dense().tolist()) == (2.0, [[0.0, 0.0, 2.0]])


@pytest.mark.parametrize("constant", [0.0, -0.0, 3.0, -3.0, 1e-45, 3e38, -3e38])
@pytest.mark.parametrize("symmetric", [False, True])
def test_constant_rows_survive(constant: float, symmetric: bool) -> None:
    weights = torch.tensor([[constant] * 4, [1.0, -1.0, 0.0, 0.5]])
    stored = quantize(weights, Uniform(4, "row", symmetric))
    torch.testing.assert_close(stored.dense()[0], weights[0], rtol=1e-6, atol=1e-44)
    assert (stored.scale > 0).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 8), st.booleans(), st.integers(1, 7), matrices)
def test_groups_are_tensors_of_their_own(bits: int, symmetric: bool, size: int, weights: Tensor) -> None:
    columns = weights[0].numel()
    together = quantize(weights, Uniform(bits, "group", symmetric, size)).dense().view(-1, columns)
    for begin in range(0, columns, size):
        alone = quantize(weights.view(-1, columns)[:, begin : begin + size], Uniform(bits, "row", symmetric)).dense()
        assert torch.equal(together[:, begin : begin + size], alone)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 8), st.booleans(), granularities, matrices)
def test_the_range_of_least_error_is_never_worse(bits: int, symmetric: bool, granularity: str, weights: Tensor) -> None:
    least, whole = (
        quantize(weights, Uniform(bits, granularity, symmetric, 3, range_)).dense().double()
        for range_ in ("mse", "minmax")
    )
    assert (least - weights).square().sum() <= (whole - weights).square().sum() * (1 + 1e-6) + 1e-12


@settings(deadline=None, max_examples=50)
@given(methods_of_every_range, matrices)
def test_zeros_stay_zero_in_every_range(method: Uniform, weights: Tensor) -> None:
    assert (quantize(weights, method).dense()[weights == 0] == 0).all()


def test_percentiles_leave_out_the_ends() -> None:
    weights = torch.arange(-500.0, 501.0).view(1, -1)
    stored = quantize(weights, Uniform(8, range="percentile", percentile=99))
    assert float(stored.scale) == pytest.approx(2 * 490 / 255)
    assert abs(float(stored.dense().max()) - 490) <= float(stored.scale)
    assert torch.equal(
        quantize(weights, Uniform(4, range="percentile", percentile=100)).dense(), quantize(weights, Uniform(4)).dense()
    )


@pytest.mark.parametrize("k", [1.5, 20.0])
def test_standard_deviations_of_what_is_not_zero_set_the_step_wherever_the_ends_are(k: float) -> None:
    weights = _normal()[:9] + 0.1
    pruned = weights.masked_fill(weights.abs() < 0.7, 0.0)
    stored = quantize(pruned, Uniform(6, range="sigma", sigma=k))
    deviations = torch.stack([row[row != 0].std(correction=0) for row in pruned])
    torch.testing.assert_close(stored.scale[:, 0], 2 * k * deviations / 63)
    reach = k * deviations[:, None]
    assert bool((stored.dense() - 0.1).abs().le(reach + 0.3 + stored.scale).all()), "clipped"


def test_the_deviations_of_least_error_are_those_of_max_1960() -> None:
    weights = _normal()
    errors = [
        relative_squared_error({"w": weights}, {"w": quantize(weights, _sigma(4, k)).dense()})["w"]
        for k in (2.1, 2.5, 3.0)
    ]
    assert errors[1] == min(errors) == pytest.approx(0.01154, rel=0.05)


def test_the_entropy_of_the_codes_is_that_of_the_bits_and_deviations() -> None:
    weights = _normal()
    for bits, k in ((4, 3.0), (6, 4.0), (7, 8.0)):
        expected = bits - math.log2(k) + 1.05
        assert entropy_bits([quantize(weights, _sigma(bits, k))]) == pytest.approx(expected, abs=0.1)


def _sigma(bits: int, k: float) -> Uniform:
    return Uniform(bits, "tensor", range="sigma", sigma=k)


@pytest.mark.parametrize(("bits", "error"), [(4, 0.01154), (5, 0.003495), (6, 0.001041)])
def test_the_range_of_least_error_comes_close_to_the_best_uniform_quantizer(bits: int, error: float) -> None:
    """Errors of Max 1960, table II (5 bits and more: Jayant and Noll 1984, table 4.4), whose levels need not hold 0."""
    weights = _normal()
    rounded = quantize(weights, Uniform(bits, "tensor", range="mse")).dense()
    assert relative_squared_error({"w": weights}, {"w": rounded})["w"] == pytest.approx(error, rel=0.05)


def test_half_precision_comes_back_in_half_precision() -> None:
    weights = torch.randn(8, 16).bfloat16()
    found = quantize(weights, Uniform(8)).dense()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, weights, rtol=0.01, atol=0.03)


def _grouped(tensor: Tensor, stored: Affine) -> Tensor:
    return tensor.reshape(len(stored.scale), -1)


def _normal() -> Tensor:
    return torch.randn((1000, 1000), generator=torch.Generator().manual_seed(1))
