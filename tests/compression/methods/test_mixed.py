"""Mixed bits: the average is kept, sensitive matrices get more, and the sum of errors falls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trainlarge.compression import Recipe, compress
from trainlarge.compression.methods.mixed import output_error, share_out
from trainlarge.config.quantize import Mixed, Uniform

FALLING = [4.0**-bits for bits in range(2, 9)]
counts = st.lists(st.integers(1, 1000), min_size=1, max_size=12)


@given(st.floats(2, 8), counts, st.randoms())
def test_the_average_is_kept_and_nothing_more_fits(average: float, sizes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    weights = {f"m{i}": size for i, size in enumerate(sizes)}
    bits = share_out(average, {name: [random.random() * error for error in FALLING] for name in weights}, weights)
    used = sum(bits[name] * size for name, size in weights.items())
    left = average * sum(sizes) - used
    assert left >= -1e-6
    assert all(2 <= bits[name] <= 8 for name in weights)
    assert all(bits[name] == 8 or size > left - 1e-6 for name, size in weights.items())


@given(st.integers(2, 8), st.integers(1, 6))
def test_equal_matrices_get_equal_bits(bits: int, count: int) -> None:
    weights = {f"m{i}": 10 for i in range(count)}
    assert set(share_out(bits, dict.fromkeys(weights, FALLING), weights).values()) == {bits}


def test_a_sensitive_matrix_gets_more() -> None:
    """Errors 4^-b and 16 times as much: the optimum is two bits apart."""
    sensitive = [16 * error for error in FALLING]
    assert share_out(4, {"a": FALLING, "b": sensitive}, {"a": 10, "b": 10}) == {"a": 3, "b": 5}


def test_the_error_of_an_output() -> None:
    inputs = torch.randn((50, 6), generator=torch.Generator().manual_seed(0))
    before, after = torch.randn(3, 6), torch.randn(3, 6)
    direct = (inputs @ (after - before).T).square().sum() / (inputs @ before.T).square().sum()
    assert output_error(before, after, (inputs.T @ inputs / 50).double()) == pytest.approx(float(direct), rel=1e-4)
    assert output_error(torch.zeros(2, 2), torch.zeros(2, 2), None) == 0.0


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_the_sum_of_errors_is_at_most_that_of_equal_bits(
    layers: nn.Module, inputs: Tensor, output_errors: Callable[[Recipe], dict[str, float]], bits: int
) -> None:
    with torch.no_grad():
        layers.wide.weight[:, 0] *= 50  # type: ignore[index,union-attr,operator]
    recipes = [
        Recipe(quantize=Mixed(bits, embeddings=False, calibration_rows=400)),
        Recipe(quantize=Uniform(bits, embeddings=False)),
    ]
    mixed, equal = map(output_errors, recipes)
    assert sum(mixed.values()) <= sum(equal.values()) * (1 + 1e-4)
    mixed_sizes, equal_sizes = (compress(layers, recipe, calibration=[inputs]).sizes for recipe in recipes)
    assert mixed_sizes.ideal_bytes <= equal_sizes.ideal_bytes
