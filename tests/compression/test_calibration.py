"""Calibration: the statistics are those of the layers' inputs, computed once, of the dense model, only when needed."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from trainlarge.compression import Magnitude, Recipe, Uniform, Weights, compress, compress_grid
from trainlarge.compression.calibration import Calibration, first_rows, inverse_factor
from trainlarge.compression.model_tensors import load_weights
from trainlarge.config.prune import SparseGPT, Wanda
from trainlarge.config.quantize import GPTQ
from trainlarge.errors import UserError

METHODS = [Recipe(Wanda(0.5)), Recipe(SparseGPT(0.5)), Recipe(quantize=GPTQ(4))]


class TwoLayers(nn.Module):
    """A linear layer after another, so that the inputs of the second are known."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.second(self.first(inputs))


@pytest.fixture
def two() -> TwoLayers:
    torch.manual_seed(0)
    return TwoLayers()


def calibration(model: nn.Module, batches: list) -> Calibration:
    return Calibration(Weights.of(model), model, lambda: batches)


def test_statistics_are_those_of_the_inputs(two: TwoLayers) -> None:
    batches = [torch.randn(2, 5, 3), torch.randn(3, 5, 3)]
    found = calibration(two, batches)
    inputs = torch.cat([batch.reshape(-1, 3) for batch in batches])
    for name, own in (("first.weight", inputs), ("second.weight", two.first(inputs).detach())):
        torch.testing.assert_close(found.hessians(99)[name], own.T @ own / 25, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.mean_squares(99)[name], own.square().mean(0).double(), rtol=1e-5, atol=1e-6)
    assert set(found.hessians(99)) == {"first.weight", "second.weight"}


def test_only_the_first_rows_count(two: TwoLayers) -> None:
    batches = [torch.randn(2, 5, 3), torch.randn(3, 5, 3)]
    some = calibration(two, batches).mean_squares(3)["first.weight"]
    alone = calibration(two, [batches[0], batches[1][:1]]).mean_squares(3)["first.weight"]
    assert torch.equal(some, alone)
    assert [len(batch[""]) for batch in first_rows(batches, 2)] == [2]


def test_masked_positions_do_not_count(two: TwoLayers) -> None:
    inputs, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    found = calibration(two, [{"inputs": inputs, "attention_mask": mask}]).mean_squares(9)["first.weight"]
    torch.testing.assert_close(found, inputs[mask.bool()].square().mean(0).double())


def test_either_side_of_an_encoder_decoder_has_its_own_mask() -> None:
    shape = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 16}
    torch.manual_seed(0)
    model = BartForConditionalGeneration(BartConfig(vocab_size=60, d_model=16, **shape, **heads)).eval()
    read, written = torch.tensor([[1, 1, 1, 1, 0]]), torch.tensor([[1, 1, 0, 0, 0]])
    batch = {"input_ids": torch.randint(5, 60, (1, 5)), "decoder_input_ids": torch.randint(5, 60, (1, 5)),
             "attention_mask": read, "decoder_attention_mask": written}  # fmt: skip
    seen: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].detach()}))
    found = calibration(model, [batch]).ranges(1)
    for name in layers:
        of_encoder = ".encoder." in name or name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
        values = seen[name][(read if of_encoder else written).bool()]
        assert found[name] == (float(values.min()), float(values.max())), name
    assert not model.get_encoder()._forward_hooks


def test_statistics_are_of_the_dense_model_whatever_it_holds_now(two: TwoLayers) -> None:
    batches = [torch.randn(4, 3)]
    weights = Weights.of(two)
    expected = Calibration(weights, two, lambda: batches).mean_squares(9)["second.weight"]
    with torch.no_grad():
        two.first.weight.zero_()
    found = Calibration(weights, two, lambda: batches).mean_squares(9)["second.weight"]
    assert torch.equal(found, expected)


def test_a_model_keeps_its_mode_and_loses_its_hooks(two: TwoLayers) -> None:
    two.train()
    calibration(two, [torch.randn(4, 3)]).mean_squares(9)
    assert two.training
    assert not two.first._forward_pre_hooks


def test_embeddings_and_what_is_tied_to_them_have_no_inputs(model: PreTrainedModel) -> None:
    names = set(calibration(model, [{"input_ids": torch.randint(3, 120, (2, 8))}]).hessians(9))
    weights = Weights.of(model)
    assert names
    assert not names & weights.embeddings


@pytest.mark.parametrize("hessian", [torch.zeros(4, 4), torch.ones(4, 4), torch.eye(4) * 1e-12])
def test_the_factor_of_inputs_that_say_little(hessian: Tensor) -> None:
    factor = inverse_factor(hessian, 0.01)
    assert torch.isfinite(factor).all()
    assert (factor.diagonal() > 0).all()


def test_the_factor_is_that_of_the_inverse() -> None:
    inputs = torch.randn((100, 6), generator=torch.Generator().manual_seed(0)).double()
    hessian = inputs.T @ inputs / 100
    factor = inverse_factor(hessian, 0.01).double()
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(6)
    torch.testing.assert_close(factor.T @ factor @ damped, torch.eye(6).double(), rtol=1e-5, atol=1e-5)


def test_large_statistics_are_kept_for_one_kind_of_recipe_at_a_time(two: TwoLayers) -> None:
    found, one = calibration(two, [torch.randn(4, 3)]), SparseGPT(0.5)
    factor = found.factor("first.weight", one)
    assert found.factor("first.weight", GPTQ(4)) is factor, "of the same rows and damping"
    large = [weakref.ref(factor), weakref.ref(found.hessians(one.calibration_rows)["first.weight"])]
    del factor
    found.factor("second.weight", replace(one, damping=0.02))
    assert [held() is None for held in large] == [True, False]
    found.factor("second.weight", replace(one, calibration_rows=2))
    assert [held() is None for held in large] == [True, True]


def test_recipes_of_one_damping_share_its_factors_wherever_they_stand(
    modern: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float] = []

    def counted(hessian: Tensor, damping: float) -> Tensor:
        calls.append(damping)
        return inverse_factor(hessian, damping)

    monkeypatch.setattr("trainlarge.compression.calibration.inverse_factor", counted)
    batches = [{"input_ids": torch.randint(3, 120, (4, 8), generator=torch.Generator().manual_seed(0))}]
    weights = Weights.of(modern)
    statistics = Calibration(weights, modern, lambda: batches)
    recipes = [
        recipe
        for strength in (3, 4, 5)
        for damping in (0.01, 0.02)
        for recipe in (
            Recipe(SparseGPT(strength / 10, damping=damping)),
            Recipe(quantize=GPTQ(strength, damping=damping)),
        )
    ]
    assert len(list(compress_grid(weights, recipes, statistics))) == len(recipes)
    assert len(calls) == 2 * len(statistics.hessians(128))


@pytest.mark.parametrize(
    ("recipe", "slot"),
    [(Recipe(SparseGPT(0.5, damping=1e-12)), "prune"), (Recipe(quantize=GPTQ(4, damping=1e-12)), "quantize")],
    ids=["prune", "quantize"],
)
def test_a_damping_that_is_too_small_for_the_data_is_refused_alone(
    modern: PreTrainedModel, recipe: Recipe, slot: str
) -> None:
    one_token = {"input_ids": torch.full((2, 8), 7)}
    weights, refused = Weights.of(modern), {}
    statistics = Calibration(weights, modern, lambda: [one_token])
    recipes = [Recipe(Magnitude(0.5)), recipe, Recipe(SparseGPT(0.5)), Recipe(quantize=GPTQ(4))]
    found = [position for position, _ in compress_grid(weights, recipes, statistics, refused=refused.__setitem__)]
    assert sorted(found) == [0, 2, 3] and list(refused) == [1]
    assert re.match(
        rf"{slot}\.damping=1e-12 is not valid: must be a larger share: .* inputs of model\.", str(refused[1])
    )


@pytest.mark.parametrize("recipe", METHODS, ids=Recipe.describe)
def test_without_data_a_method_that_needs_it_is_refused(model: PreTrainedModel, recipe: Recipe) -> None:
    with pytest.raises(
        UserError, match=r"^calibration=None is not valid: must be batches of inputs, since .*name=\w+ looks"
    ):
        compress(model, recipe)


def test_without_data_the_recipes_of_a_grid_that_need_none_go_on(modern: PreTrainedModel) -> None:
    recipes, refused = [Recipe(), *METHODS, Recipe(Magnitude(0.5)), Recipe(Magnitude(0.5), GPTQ(4))], {}
    found = [position for position, _ in compress_grid(Weights.of(modern), recipes, refused=refused.__setitem__)]
    assert sorted(found) == [0, 4]
    assert sorted(refused) == [1, 2, 3, 5]
    assert all(str(error).startswith("calibration=None is not valid: ") for error in refused.values())


@pytest.mark.parametrize("batches", [[], [torch.zeros((0, 8), dtype=torch.long)], iter([])])
def test_empty_data_is_refused(modern: PreTrainedModel, batches: list) -> None:
    with pytest.raises(UserError, match=r"^calibration=no rows is not valid: must be at least one row of inputs$"):
        compress(modern, Recipe(Wanda(0.5)), calibration=batches)


def test_a_method_that_needs_none_never_triggers_it(two: TwoLayers) -> None:
    def never() -> Iterator[Tensor]:
        raise AssertionError("calibrated")

    statistics = Calibration(Weights.of(two), two, never)
    assert len(list(compress_grid(Weights.of(two), [Recipe(Magnitude(0.5), Uniform(4))], statistics))) == 1


def test_a_grid_gives_what_each_recipe_gives_alone(modern: PreTrainedModel) -> None:
    batches = [{"input_ids": torch.randint(3, 120, (4, 8), generator=torch.Generator().manual_seed(0))}]
    recipes = [
        Recipe(),
        Recipe(Wanda(0.3), GPTQ(4)),
        Recipe(Wanda(0.6, calibration_rows=2)),
        Recipe(SparseGPT(0.5, m=4), Uniform(4)),
        Recipe(quantize=GPTQ(3, "group", group_size=8)),
    ]
    weights, calls = Weights.of(modern), []
    statistics = Calibration(weights, modern, lambda: calls.append(1) or batches)  # type: ignore[func-returns-value]
    for position, compressed in compress_grid(weights, recipes, statistics):
        # As a stage does: the model holds compressed weights when the next recipe asks for statistics.
        load_weights(modern, compressed.weights)
        fresh = type(modern)(modern.config)
        load_weights(fresh, weights.tensors)
        alone = compress(fresh, recipes[position], calibration=batches).weights
        assert all(torch.equal(alone[name], tensor) for name, tensor in compressed.weights.items())
    assert len(calls) == 3, "norms for two numbers of rows, and Hessians"
