"""Rounded activations: the integers of the formulas, of the right layers, evaluated as the packed file computes."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression import (
    Dynamic,
    LowRank,
    Magnitude,
    Neurons,
    Recipe,
    Static,
    Uniform,
    Weights,
    compress,
    compress_grid,
    load_packed,
    save_packed,
)
from trainlarge.compression.calibration import Calibration
from trainlarge.compression.stored.packing import packed_header
from trainlarge.config.recipe import SLOTS
from trainlarge.errors import UserError
from trainlarge.models.fake_quantize import (
    PerTensor,
    PerToken,
    fake_quantize_inputs,
    fake_quantized_inputs,
    has_fake_quantized_inputs,
)
from trainlarge.models.families import MODEL_CLASSES
from trainlarge.models.forward import library_logits, logits_at

METHODS = [Dynamic(), Dynamic(symmetric=False), Static(), Static(4, symmetric=False)]
by_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.describe())


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(3, 120, (4, 16), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_error_of_gaussian_inputs_is_that_of_their_step(bits: int, symmetric: bool) -> None:
    """Uniform errors within the step, step^2 / 12, where steps are fine; with 2 bits they are not, and it is less."""
    values = torch.randn(200, 4096, generator=torch.Generator().manual_seed(0))
    error = (PerToken(bits, symmetric)(values) - values).square().mean()
    reach = NormalDist().inv_cdf(1 - 0.5 / 4096)  # about the largest of 4096 normal values
    step = 2 * reach / (2**bits - (2 if symmetric else 1))
    if bits == 8:
        assert float(error) == pytest.approx(step**2 / 12, rel=0.15)
    assert float(error) < 1.3 * min(1, step**2 / 4)


@given(st.integers(2, 8), st.booleans(), st.integers(0, 99))
def test_codes_are_whole_numbers_in_range(bits: int, symmetric: bool, seed: int) -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    values[0, 0] = 0
    rounded = PerToken(bits, symmetric)(values)
    for row, found in zip(values, rounded, strict=True):
        low, high = min(0.0, float(row.min())), max(0.0, float(row.max()))
        steps = 2**bits - (2 if symmetric else 1)
        step = (2 * max(-low, high) if symmetric else high - low) / steps
        codes = found / step
        torch.testing.assert_close(codes, codes.round(), atol=1e-4, rtol=0)
        assert len(codes.round().unique()) <= steps + 1
        # Asymmetric: rounding the zero point moves the range by half a step at most.
        assert float((found - row).abs().max()) <= step * (0.5 if symmetric else 1.0) * 1.001
    assert rounded[0, 0] == 0


@pytest.mark.parametrize("symmetric", [True, False])
def test_each_token_has_its_own_scale(symmetric: bool) -> None:
    values = torch.randn(2, 3, 16)
    scaled = values * torch.tensor([1.0, 1024.0, 2.0**-20]).view(1, 3, 1)
    rounded = PerToken(8, symmetric)(scaled)
    for place in range(3):
        alone = PerToken(8, symmetric)(scaled[:, place])
        assert torch.equal(rounded[:, place], alone)
    assert torch.equal(rounded[:, 1], 1024 * PerToken(8, symmetric)(values[:, 1])), "a power of two scales exactly"
    assert torch.equal(PerToken(8, symmetric)(torch.zeros(2, 4)), torch.zeros(2, 4))


def test_static_values_beyond_the_range_are_clamped() -> None:
    values = torch.tensor([[-9.0, -0.5, 0.0, 1.0, 9.0]])
    assert PerTensor(8, True, -1.0, 2.0)(values).tolist()[0][::4] == [-2.0, 2.0]
    low, *_, high = PerTensor(8, False, -1.0, 2.0)(values)[0].tolist()
    assert (low, high) == (pytest.approx(-1.0, abs=3 / 255), pytest.approx(2.0, abs=3 / 255))
    half = torch.randn(3, 4, dtype=torch.bfloat16)
    assert PerTensor(8, False, -1.0, 2.0)(half).dtype == torch.bfloat16


def test_static_ranges_are_those_of_the_calibration_rows(model: PreTrainedModel, tokens: Tensor) -> None:
    name = MODEL_CLASSES[type(model).__name__][1].output
    seen: list[Tensor] = []
    model.get_submodule(name).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(tokens[:2])
    batches, expected = [tokens[:1], tokens[1:]], [float(seen[0].min()), float(seen[0].max())]
    two = compress(model, Recipe(activations=Static(calibration_rows=2)), calibration=batches).packed.ranges
    all_rows = compress(model, Recipe(activations=Static()), calibration=batches).packed.ranges
    assert list(two[name]) == pytest.approx(expected, rel=1e-5)
    assert set(two) == {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    assert all(all_rows[name][0] <= low and high <= all_rows[name][1] for name, (low, high) in two.items())
    assert all_rows != two


def test_static_ranges_without_data(model: PreTrainedModel) -> None:
    with pytest.raises(
        UserError, match=r"^calibration=None is not valid: must be batches .*activations.name=static looks"
    ):
        compress(model, Recipe(activations=Static()))
    with pytest.raises(UserError, match=r"^calibration=no rows is not valid: must be at least one row of inputs$"):
        compress(model, Recipe(activations=Static()), calibration=[])


def test_the_layers_are_those_with_codes(model: PreTrainedModel) -> None:
    every = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    output = {name for name in every if model.get_submodule(name) is model.get_output_embeddings()}
    ranges = {
        part: set(compress(model, Recipe(quantize=quantize, activations=Dynamic())).packed.ranges)
        for part, quantize in {"none": None, "all": Uniform(8), "body": Uniform(8, embeddings=False)}.items()
    }
    assert ranges == {"none": every, "all": every, "body": every - output}


def test_eight_bits_cost_little_and_two_cost_much(model: PreTrainedModel, tokens: Tensor) -> None:
    labels = torch.randint(3, 120, tokens.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # far from a uniform guess
    dense = _loss(model, tokens, labels)
    increase = {
        bits: abs(_loss(compress(model, Recipe(activations=Dynamic(bits))).model(), tokens, labels) - dense)
        for bits in (2, 8)
    }
    assert increase[8] < 0.02 * dense
    assert increase[8] < increase[2]


@by_method
def test_evaluation_takes_no_path_that_does_not_round(
    model: PreTrainedModel, tokens: Tensor, method: Dynamic | Static
) -> None:
    rounding_model = compress(model, Recipe(activations=method), calibration=[tokens]).model()
    positions = torch.tensor([[1, 5], [0, 15], [3, 4], [2, 9]])
    with torch.no_grad():
        fast, library = (forward(rounding_model, tokens, positions) for forward in (logits_at, library_logits))
        whole = rounding_model(tokens).logits.gather(1, positions.unsqueeze(-1).expand(-1, -1, 120)).flatten(0, 1)
        assert torch.equal(fast, library)
        torch.testing.assert_close(fast, whole, atol=1e-5, rtol=1e-5)
        assert not torch.equal(fast, logits_at(model, tokens, positions))


recipes = st.builds(
    Recipe,
    prune=st.none() | st.just(Magnitude(0.5)),
    quantize=st.sampled_from([None, Uniform(8), Uniform(4, embeddings=False)]),
    structure=st.none() | st.just(Neurons(0.5)),
    factorize=st.none() | st.just(LowRank(0.5)),
    activations=st.sampled_from(METHODS),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=recipes)
def test_a_file_gives_back_the_evaluated_model(
    model: PreTrainedModel, tokens: Tensor, tmp_path: Path, recipe: Recipe
) -> None:
    compressed, path = compress(model, recipe, calibration=[tokens[:2]]), tmp_path / "packed"
    save_packed(path, compressed)
    assert path.stat().st_size == compressed.sizes.file_bytes
    header = packed_header(path)
    assert Recipe.from_json(header.recipe) == recipe
    with torch.no_grad():
        expected = compressed.model()(tokens).logits
        assert torch.equal(load_packed(path)(tokens).logits, expected)
        loaded = load_packed(path, copy.deepcopy(model))
        assert torch.equal(loaded(tokens).logits, expected)
        assert torch.equal(copy.deepcopy(loaded)(tokens).logits, expected), "a copy rounds, too"
    assert not has_fake_quantized_inputs(model)


def test_a_grid_gives_what_each_recipe_gives_alone(model: PreTrainedModel, tokens: Tensor) -> None:
    grid = [Recipe(quantize=quantize, activations=method) for quantize in (None, Uniform(4)) for method in METHODS]
    weights, positions = Weights.of(model), torch.zeros(4, 1, dtype=torch.long)
    calibration = Calibration(weights, model, lambda: [tokens])
    for position, compressed in compress_grid(weights, grid, calibration):
        alone = compress(model, grid[position], calibration=[tokens])
        assert compressed.packed.ranges == alone.packed.ranges
        with torch.no_grad():
            one, other = (logits_at(each.model(), tokens, positions) for each in (compressed, alone))
        assert torch.equal(one, other)


def test_a_model_rounds_only_as_long_as_asked(model: PreTrainedModel, tokens: Tensor) -> None:
    before = model(tokens).logits
    roundings = compress(model, Recipe(activations=Dynamic(2))).packed.quantizers
    with fake_quantized_inputs(model, roundings):
        assert has_fake_quantized_inputs(model) and not torch.equal(model(tokens).logits, before)
        fake_quantize_inputs(model, dict(list(roundings.items())[:1]))
        assert sum(bool(module._forward_pre_hooks) for module in model.modules()) == 1
    assert not has_fake_quantized_inputs(model) and torch.equal(model(tokens).logits, before)
    compress(model, Recipe(activations=Dynamic(2)), inplace=True)
    assert has_fake_quantized_inputs(model)


def test_a_file_of_the_family_says_nothing_of_it(model: PreTrainedModel, tmp_path: Path) -> None:
    """What ``load_packed`` gives is saved as any model: its weights, not its hooks."""
    compressed = compress(model, Recipe(quantize=Uniform(8), activations=Dynamic()))
    save_packed(tmp_path / "packed", compressed)
    load_packed(tmp_path / "packed").save_pretrained(tmp_path / "saved")
    saved = Weights.of(type(model).from_pretrained(tmp_path / "saved")).tensors
    assert all(torch.equal(saved[name], tensor) for name, tensor in compressed.weights.items())


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"name": "dynamic", "bits": 1}, "activations.bits=1 is not valid: must be a whole number from 2 to 8, or 32"),
        ({"name": "dynamic", "bits": 16}, "activations.bits=16"),
        ({"name": "static", "symmetric": "maybe"}, "activations.symmetric=maybe is not valid: must be true or false"),
        (
            {"name": "static", "calibration_rows": 0},
            "activations.calibration_rows=0 is not valid: must be a whole number from 1",
        ),
        (
            {"name": "dynamic", "calibration_rows": 4},
            "activations.calibration_rows=4 is not valid: no such key: must be a field of dynamic",
        ),
        ({"name": "moving"}, "activations.name=moving is not valid: must be one of none, dynamic, static"),
    ],
)
def test_bad_fields_are_named(group: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe.from_config(activations=group)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_it_comes_last() -> None:
    assert SLOTS[-1] == "activations"
    with pytest.raises(
        UserError, match=r"^order=\['activations', 'quantize'\] is not valid: must be a list that ends with act"
    ):
        Recipe(quantize=Uniform(8), activations=Dynamic(), order=("activations", "quantize"))
    recipe = Recipe(quantize=Uniform(8), activations=Static(4, False))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert Recipe.from_config(**recipe.to_config()) == recipe
    assert recipe.describe() == "8 bit row, 4 bit inputs static asymmetric"
    assert Recipe.from_config(activations={"name": "dynamic", "bits": 32}) == Recipe()


@torch.no_grad()
def _loss(model: nn.Module, tokens: Tensor, labels: Tensor) -> float:
    loss = float(nn.functional.cross_entropy(model(tokens).logits.flatten(0, 1), labels.flatten()))
    assert math.isfinite(loss)
    return loss
