"""What the same recipes cost each size, on made-up studies whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trainlarge.config.recipe import SLOTS
from trainlarge.results.analysis.loss_increases import DENSE_LOSS, STEPS, TIME, Increases, increases
from trainlarge.results.document_losses import DocumentSums, Sample
from trainlarge.results.recipes import keeps_shapes, recipe_family

SIZES = {"small": 1_000, "middle": 4_000, "large": 16_000}
RECIPES = {"8 bit row": 0.1, "4 bit row": 1.0, "4 bit tensor": 2.0, "prune 60 % global": 1.5}


def study(
    dense: Callable[[str, int], float],
    increase: Callable[[str, float], float],
    steps: Iterable[int] = (100, 200, 400, 800),
    seeds: int = 1,
    unit: str = "s",
    stride: dict[str, int] | None = None,
) -> tuple[pd.DataFrame, Sample]:
    """Compress cells from the dense loss of a size after steps, and its increase at that loss, times a recipe's."""
    rows, sample = [], Sample()
    for name in SIZES:
        for seed in range(seeds):
            for value in steps:
                base = dense(name, value) + 0.01 * seed
                for recipe, factor in {"dense": 0.0, **RECIPES}.items():
                    cost = factor * increase(name, base) * (1 + 0.05 * seed)
                    own = (stride or {}).get(name, 1)
                    rows.append(_row(name, seed, value, value * own, base, cost, recipe, unit))
                    _add(sample, rows[-1])
    return pd.DataFrame(rows), sample


def _row(
    name: str, seed: int, value: int, step: int, base: float, cost: float, recipe: str, unit: str
) -> dict[str, Any]:
    parent = f"{name}-{seed}-{value}"
    return {
        "cell": f"{parent}-{recipe}", "parent": parent, "series": name, "shape": name, "parameters": SIZES[name],
        "seed": seed, "budget": f"{value} {unit}", "budget_unit": unit, "budget_value": float(value), "batch": 2048,
        "step": step, "recipe": recipe, "dense_loss": base, "loss_increase": cost, "loss": base + cost,
        "vocabulary": "none", "structure": "none", "factorize": "none", "recover": "none", "activations": "none",
        "prune": "magnitude" if "prune" in recipe else "none", "quantize": "uniform" if "bit" in recipe else "none",
        "recover_steps": 0, "model_seconds": float(value),
        "bits": float(recipe[0]) if "bit" in recipe else 32, "sparsity": 0.6 if "prune" in recipe else 0.0,
    }  # fmt: skip


def _add(sample: Sample, row: dict[str, Any]) -> None:
    own = np.random.default_rng(list(row["cell"].encode())).normal(0, 0.02, 30)
    base = 10 * np.full(30, row["dense_loss"])
    loss = base + 10 * (row["loss_increase"] + own - own.mean())
    sample.add(row["cell"], DocumentSums(list(range(30)), np.full(30, 10.0), loss, base))


def answers(compression: pd.DataFrame, sample: Sample) -> dict[str, Increases]:
    found = increases(compression, set(compression["parent"]), sample)
    return {some.equal: some for some in found}


def values(some: Increases) -> dict[str, float]:
    return {name: some.overall[name].value for name in some.sizes}


def falls_with_training(name: str, steps: int) -> float:
    """Larger sizes learn more per step."""
    return 5 - {"small": 0.5, "middle": 0.6, "large": 0.7}[name] * float(np.log2(steps / 50))


def test_what_grows_with_training_alone_is_equal_at_equal_dense_loss_and_not_at_equal_steps() -> None:
    # The increase depends on the dense loss only: whoever has learned more loses more, whatever its size.
    found = answers(*study(falls_with_training, lambda name, base: 0.3 * (5 - base)))
    steps, loss = found[STEPS], found[DENSE_LOSS]
    assert (steps.where, loss.sizes) == ("800 steps", ("small", "middle", "large"))
    assert values(steps)["small"] < values(steps)["middle"] < values(steps)["large"]
    low, *others = values(loss).values()
    assert others == pytest.approx([low, low], rel=0.02)
    gaps = loss.comparisons(study(falls_with_training, lambda name, base: 0.3 * (5 - base))[1])
    assert all(gap.low < 0.01 and gap.high > -0.01 for gap in gaps.values())


def test_a_larger_size_that_loses_less_at_equal_dense_loss_is_seen_though_it_has_learned_more() -> None:
    factor = {"small": 1.0, "middle": 0.85, "large": 0.72}
    found = answers(*study(falls_with_training, lambda name, base: factor[name] * 0.3 * (5 - base)))
    loss = values(found[DENSE_LOSS])
    assert loss["small"] > loss["middle"] > loss["large"]
    assert loss["large"] / loss["small"] == pytest.approx(0.72, rel=0.02)
    steps = values(found[STEPS])
    assert steps["large"] > 0.95 * steps["small"], "at equal steps what it has learned more hides that"


def test_families_count_once_and_recipes_in_them_by_their_median() -> None:
    found = answers(*study(falls_with_training, lambda name, base: 0.5))[TIME]
    assert {family: some["small"].value for family, some in found.families.items()} == pytest.approx(
        {"8 bit": 0.05, "4 bit": 0.75, "prune 60 %": 0.75}
    )
    assert values(found)["small"] == pytest.approx((0.05 + 0.75 + 0.75) / 3)


def test_seeds_are_counted_and_not_recipes() -> None:
    compression, sample = study(falls_with_training, lambda name, base: SIZES[name] ** -0.2, seeds=3)
    found = answers(compression, sample)[TIME]
    assert all(len(estimate.seeds) == 3 for estimate in found.overall.values())
    assert all(gap.p is not None for gap in found.comparisons(sample).values())
    one = answers(*study(falls_with_training, lambda name, base: SIZES[name] ** -0.2))[TIME]
    assert all(gap.p is None and gap.why_not == "one seed" for gap in one.comparisons(sample).values())


def test_equal_steps_need_equal_steps_of_one_batch() -> None:
    stride = {"small": 3, "middle": 5, "large": 7}
    compression, sample = study(falls_with_training, lambda name, base: 0.1, steps=(100, 200), stride=stride)
    found = answers(compression, sample)
    assert not found[TIME].why_not and "same number of steps of one batch" in found[STEPS].why_not
    batches = study(falls_with_training, lambda name, base: 0.1)[0]
    batches = batches.assign(batch=batches["parameters"])
    assert "one batch" in answers(batches, sample)[STEPS].why_not


def test_equal_time_needs_budgets_in_seconds_and_clocks_that_count() -> None:
    compression, sample = study(falls_with_training, lambda name, base: 0.1, unit="steps")
    assert "same budget in seconds" in answers(compression, sample)[TIME].why_not
    seconds, sample = study(falls_with_training, lambda name, base: 0.1)
    untimed = increases(seconds, set(seconds[seconds["series"] == "small"]["parent"]), sample)
    assert "same budget in seconds" in untimed[0].why_not


def test_ranges_that_do_not_overlap_are_told_and_neighbours_that_do_are_compared() -> None:
    apart = {"small": 9.0, "middle": 5.0, "large": 1.0}
    found = answers(*study(lambda name, steps: apart[name] - steps / 1000, lambda name, base: 0.1))
    assert found[DENSE_LOSS].why_not == "the ranges of their dense losses do not overlap"
    near = {"small": 9.0, "middle": 8.5, "large": 1.0}
    compression, sample = study(lambda name, steps: near[name] - steps / 1000, lambda name, base: 0.1)
    pairs = [some for some in increases(compression, set(), sample) if some.equal == DENSE_LOSS]
    assert [some.sizes for some in pairs] == [("small", "middle")]


def test_one_checkpoint_of_a_size_cannot_be_brought_to_another_dense_loss() -> None:
    found = answers(*study(falls_with_training, lambda name, base: 0.1, steps=(100,)))
    assert "two checkpoints of each size and seed" in found[DENSE_LOSS].why_not


def test_destroyed_models_and_recipes_that_not_all_have_are_left_out() -> None:
    compression, sample = study(falls_with_training, lambda name, base: 1.5)
    found = answers(compression, sample)[TIME]
    assert "4 bit" in found.families, "4 bit row works, 4 bit tensor is destroyed"
    assert found.families["4 bit"]["small"].value == pytest.approx(1.5)
    without = compression[~((compression["series"] == "large") & compression["recipe"].eq("4 bit row"))]
    assert "4 bit" not in answers(without, sample)[TIME].families
    broken = study(falls_with_training, lambda name, base: 50.0)
    assert "under which any of them still works" in answers(*broken)[TIME].why_not


@pytest.mark.parametrize(
    ("slots", "family"),
    [
        ({"quantize": "kmeans", "bits": 3.0}, "3 bit"),
        ({"prune": "magnitude", "sparsity": 0.45}, "prune 45 %"),
        ({"prune": "magnitude", "quantize": "uniform"}, "prune + quantize"),
        ({"prune": "magnitude", "sparsity": 0.45, "recover": "retrain"}, "prune 45 %, retrain"),
        ({"prune": "soft_movement", "sparsity": 0.37, "recover": "retrain"}, "prune soft_movement, retrain"),
        (
            {"prune": "magnitude", "sparsity": 0.45, "recover": "retrain", "recover_rewind": "9 steps"},
            "prune 45 %, retrain from 9 steps",
        ),
        ({"prune": "magnitude", "recover": "retrain", "quantize": "uniform"}, "prune + recover + quantize"),
        ({"structure": "heads"}, "structure"),
    ],
)
def test_families_are_named_by_what_they_do(slots: dict[str, Any], family: str) -> None:
    none = dict.fromkeys(SLOTS, "none")
    assert recipe_family({**none, "bits": 32, "sparsity": 0.0, **slots}) == family


def test_a_recipe_that_trains_is_not_one_that_only_changes_single_weights() -> None:
    rows = pd.DataFrame([dict.fromkeys(SLOTS, "none") | {"recover": name} for name in ("none", "retrain")])
    assert keeps_shapes(rows).tolist() == [True, False]
