"""The slot ``recover``: lengths, rates, and that recipes and configurations without it stay as they were."""

from __future__ import annotations

from typing import Any

import pytest

from trainlarge.config.prune import Magnitude
from trainlarge.config.quantize import Uniform
from trainlarge.config.recipe import Recipe
from trainlarge.config.recover import Retrain
from trainlarge.errors import UserError


@pytest.mark.parametrize(
    ("text", "kept", "steps"),
    [
        ("500 steps", "500 steps", 500),
        ("1 step", "1 steps", 1),
        ("5e2 STEPS", "500 steps", 500),
        ("0.1 parent", "0.1 parent", 100),
        (".10 Parent", "0.1 parent", 100),
        ("2 parent", "2 parent", 2000),
        ("1e-9 parent", "1e-09 parent", 1),
        ("1 epoch", "1 epochs", 40),
        ("0.5 EPOCHS", "0.5 epochs", 20),
    ],
)
def test_a_length_is_steps_or_a_share_of_the_parents(text: str, kept: str, steps: int) -> None:
    method = Retrain(text)
    assert (method.budget, method.steps(parent_steps=1000, epoch_steps=40)) == (kept, steps)
    assert Recipe.from_json(Recipe(recover=method).to_json()).recover == method


@pytest.mark.parametrize(
    "budget", ["5 s", "1e6 tokens", "0 steps", "0.5 steps", "0 parent", "1..2 parent", 500, None, ""]
)
def test_other_lengths_are_refused_in_one_line(budget: Any) -> None:
    with pytest.raises(UserError, match=r"recover\.budget=.*'500 steps'.*'0\.1 parent'"):
        Retrain(budget)


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan"), float("inf"), "fast", True])
def test_other_rates_are_refused(lr: Any) -> None:
    with pytest.raises(UserError, match=r"recover\.lr"):
        Retrain(lr=lr)


def test_the_rate_is_the_parents_where_none_is_given() -> None:
    assert Retrain().peak_lr(4e-3) == 4e-3 and Retrain(lr=1e-3).peak_lr(4e-3) == 1e-3


def test_it_comes_between_pruning_and_quantization() -> None:
    recipe = Recipe(quantize=Uniform(4), recover=Retrain("10 steps"), prune=Magnitude(0.5))
    assert recipe.order == ("prune", "recover", "quantize")
    assert recipe.describe() == "prune 50 % global, retrain 10 steps, 4 bit row"


def test_a_recipe_without_it_is_written_as_before_there_was_the_slot() -> None:
    recipe = Recipe(prune=Magnitude(0.5), quantize=Uniform(4))
    assert "recover" not in recipe.to_json() and "order" not in recipe.to_json()
    config = {"name": "magnitude", "sparsity": 0.5}, {"name": "uniform", "bits": 4}
    assert Recipe.from_config(*config, recover={"name": "none"}) == Recipe.from_config(*config)
