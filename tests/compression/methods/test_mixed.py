"""Mixed bits: the average is kept, sensitive matrices get more, and the sum of errors falls."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression import Recipe, Weights, compress
from trainlarge.compression.calibration import Calibration
from trainlarge.compression.divergence import measuring_divergence
from trainlarge.compression.methods.mixed import output_error, share_out
from trainlarge.compression.stored.affine import Affine
from trainlarge.config.quantize import Mixed, Uniform
from trainlarge.errors import UserError

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
    assert output_error(before, after, inputs.T @ inputs / 50) == pytest.approx(float(direct), rel=1e-4)
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


def test_the_divergence_of_the_models_predictions(modern: PreTrainedModel) -> None:
    """At the positions with a label, against the model with every other matrix as it is given; then as it was."""
    _enlarge(modern)
    ids = torch.randint(3, 120, (6, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(8) % 3 == 0, ids, -100)
    weights = Weights.of(modern)
    calibration = Calibration(weights, modern, lambda: [{"input_ids": ids, "labels": labels}])
    names = weights.selected(embeddings=True)
    given = {name: weights.tensors[name] * 0.9 for name in names}
    with measuring_divergence(calibration, 4, given) as divergence:
        found = divergence(names[1], given[names[1]] * 1.5)
        assert divergence(names[0], given[names[0]]) == 0.0
    assert all(torch.equal(modern.state_dict()[name], tensor) for name, tensor in weights.tensors.items())
    before, after = (
        _probabilities(modern, {**given, names[1]: given[names[1]] * factor}, ids[:4], labels[:4])
        for factor in (1, 1.5)
    )
    expected = (before * (before / after).log()).sum(-1).mean()
    assert found == pytest.approx(float(expected), rel=1e-3) and found > 0


def _enlarge(model: PreTrainedModel) -> None:
    """Weights as large as trained ones, so that predictions are not all alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)


def _probabilities(model: PreTrainedModel, changed: dict[str, Tensor], ids: Tensor, labels: Tensor) -> Tensor:
    model = copy.deepcopy(model)
    model.load_state_dict(changed, strict=False)
    with torch.no_grad():
        return model(input_ids=ids).logits[labels != -100].double().softmax(-1)


def test_bits_go_to_the_matrix_that_the_models_output_depends_on(modern: PreTrainedModel) -> None:
    """The last layer's output matrices get all bits where those of the first layer reach nothing."""
    _enlarge(modern)
    with torch.no_grad():
        for name, parameter in modern.named_parameters():
            if "layers.0." in name and name.endswith("Wo.weight"):
                parameter.mul_(1e-6)
    ids = torch.randint(3, 120, (8, 8), generator=torch.Generator().manual_seed(0))
    recipes = [Recipe(quantize=Mixed(3, embeddings=False, sensitivity=kind)) for kind in ("layer", "model")]
    by_layer, by_model = (compress(modern, recipe, calibration=[{"input_ids": ids}]) for recipe in recipes)
    bits = {name: stored.bits for name, stored in by_model.packed.stored.items() if isinstance(stored, Affine)}
    first, last = ([bits[name] for name in bits if f"layers.{i}." in name] for i in (0, 1))
    assert set(first) == {2} and max(last) > 3
    assert by_model.sizes.ideal_bytes <= by_layer.sizes.ideal_bytes
    errors = [_divergence(modern, compressed.weights, ids) for compressed in (by_layer, by_model)]
    assert errors[1] < errors[0]


def _divergence(model: PreTrainedModel, weights: Mapping[str, Tensor], ids: Tensor) -> float:
    labels = torch.zeros_like(ids)
    before, after = (_probabilities(model, changed, ids, labels) for changed in ({}, dict(weights)))
    return float((before * (before / after).log()).sum(-1).mean())


@given(st.floats(2, 8), counts, st.randoms())
def test_from_the_most_bits_the_sum_of_errors_is_no_larger(average: float, sizes: list[int], random) -> None:  # type: ignore[no-untyped-def]
    weights = {f"m{i}": size for i, size in enumerate(sizes)}
    errors = {name: [random.random() * error for error in FALLING] for name in weights}
    sums = []
    for from_most in (False, True):
        bits = share_out(average, errors, weights, from_most)
        assert sum(bits[name] * size for name, size in weights.items()) <= average * sum(sizes) + 1e-6
        sums.append(sum(errors[name][bits[name] - 2] for name in bits))
    assert sums[1] <= sums[0] + 1e-12


def test_a_model_without_logits_is_refused(layers: nn.Module, inputs: Tensor) -> None:
    with pytest.raises(UserError, match=r"quantize\.sensitivity=model"):
        compress(layers, Recipe(quantize=Mixed(3, sensitivity="model")), calibration=[inputs])
