"""What the same recipes cost models of different sizes: at equal training time, equal steps and equal dense loss.

These are three questions. An increase grows with training, so a larger model that has learned less in the same time
may lose less for that reason alone. Recipes of one checkpoint are no independent observations: of each family of
recipes the median is taken per seed, of the families the mean; seeds and documents are what is counted. Recovery is
training, too: at equal training time or steps, a recipe counts only if it trained all sizes equally long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainlarge.results.analysis.frontier import SAME_POINT
from trainlarge.results.analysis.intervals import Comparison, Difference, SeedMean, difference
from trainlarge.results.analysis.seed_lines import around
from trainlarge.results.document_losses import Sample, Weights
from trainlarge.results.recipes import is_dense, recipe_family
from trainlarge.results.scores import loss_of
from trainlarge.results.series import by_size
from trainlarge.results.training_cost import SAME_COST, has_recovery, training_cost
from trainlarge.results.units import scale_of

DESTROYED = 2.0
"""A model counts as destroyed when its increase is this many times what breaks it (``Metric.broken``): who loses less
then says nothing."""

TIME, STEPS, DENSE_LOSS = "training time", "steps", "dense loss"
"""What is equal."""

Floats = NDArray[np.float64]
Place = tuple[str, int]
"""Series and seed."""
Places = Mapping[Place, Weights]
"""Place -> checkpoints and their weights: two where a value is between them."""
Choice = tuple[str, pd.DataFrame] | str
"""Where sizes are compared, and the rows there; or why they cannot be."""


@dataclass(frozen=True)
class Increases:
    """The answer to one of the questions for some sizes."""

    equal: str
    """What is equal: training time, steps or dense loss."""
    where: str = ""
    """At which value, such as ``60 s``."""
    why_not: str = ""
    """Why there is no answer; then the rest is empty."""
    sizes: tuple[str, ...] = ()
    """Series that are compared, from the smallest to the largest."""
    families: dict[str, dict[str, SeedMean]] = field(default_factory=dict)
    """Family of recipes -> series -> median increase."""
    overall: dict[str, SeedMean] = field(default_factory=dict)
    """Series -> mean over the families."""

    def comparisons(self, sample: Sample) -> dict[Comparison, Difference]:
        """(what is equal, smaller, larger) -> smaller - larger, for neighbours in size."""
        return {
            (self.equal, small, large): difference(self.overall[small], self.overall[large], sample)
            for small, large in pairwise(self.sizes)
        }


def increases(compression: pd.DataFrame, timed: set[str], sample: Sample) -> list[Increases]:
    """The three questions in turn; the last one several times where not all sizes reach one dense loss.

    Args:
        compression: compress cells that may be compared, dense ones too.
        timed: train cells whose seconds are results.
        sample: losses per document of the compress cells.
    """
    return [
        _at(compression, TIME, "model_seconds", _by_time(compression[compression["parent"].isin(timed)]), sample),
        _at(compression, STEPS, "step", _by_steps(compression), sample),
        *_by_dense_loss(compression, sample),
    ]


def _by_time(rows: pd.DataFrame) -> Choice:
    """The largest budget in seconds that the most sizes have."""
    rows = rows[rows["budget_unit"] == "s"]
    sizes = rows.groupby("budget_value")["shape"].nunique()
    if sizes.max() < 2 or sizes.empty:
        return "no two sizes were compressed after the same budget in seconds"
    value = sizes.index[sizes == sizes.max()].max()
    chosen = rows[rows["budget_value"] == value]
    return str(chosen["budget"].iloc[0]), chosen


def _by_steps(rows: pd.DataFrame) -> Choice:
    """The largest number of steps, with one batch, after which the most sizes were compressed."""
    best: tuple[int, float, pd.DataFrame] | None = None
    for _, of_batch in rows.groupby("batch"):
        log_steps = np.log(of_batch["step"].astype(float))
        for step in of_batch["step"].unique():
            near = of_batch[(log_steps - np.log(float(step))).abs() < SAME_POINT / 2]
            candidate = near["shape"].nunique(), float(step), near
            best = candidate if best is None or candidate[:2] > best[:2] else best
    if best is None or best[0] < 2:
        return "no two sizes were compressed after the same number of steps of one batch"
    return scale_of("step").write(best[1]), best[2]


def _at(compression: pd.DataFrame, equal: str, cost: str, choice: Choice, sample: Sample) -> Increases:
    """The answer where ``cost``, a column that counts training, is equal."""
    if isinstance(choice, str):
        return Increases(equal, why_not=choice)
    where, rows = choice
    rows = rows[rows["series"].isin(_one_series_per_size(rows))]
    places = {
        place: [(parent, 1 / of_place["parent"].nunique()) for parent in of_place["parent"].unique()]
        for place, of_place in _by_place(rows).items()
    }
    recovered = compression[compression["parent"].isin(rows["parent"]) & has_recovery(compression)]
    costs = training_cost(recovered, cost).astype(float).groupby(recovered["recipe"])
    ratio = costs.max() / costs.min()
    unequal = ratio.index[ratio > 1 + SAME_COST]
    return _answer(compression[~compression["recipe"].isin(unequal)], equal, where, places, sample)


def _by_dense_loss(compression: pd.DataFrame, sample: Sample) -> list[Increases]:
    """All sizes at one dense loss if there is one that all reach, else neighbours in size that share one."""
    order = _one_series_per_size(compression)
    if len(order) < 2:
        return [Increases(DENSE_LOSS, why_not="only one size was compressed")]
    whole = _at_dense_loss(compression, order, sample)
    if not whole.why_not or len(order) == 2:
        return [whole]
    pairs = [_at_dense_loss(compression, list(pair), sample) for pair in pairwise(order)]
    return [pair for pair in pairs if not pair.why_not] or [Increases(DENSE_LOSS, why_not=pairs[0].why_not)]


def _at_dense_loss(compression: pd.DataFrame, names: list[str], sample: Sample) -> Increases:
    """The lowest dense loss that every seed of all of ``names`` reaches between two of its checkpoints."""
    parents = compression[compression["series"].isin(names)].drop_duplicates("parent")
    lines = {place: rows.sort_values("dense_loss") for place, rows in _by_place(parents).items()}
    if any(len(line) < 2 for line in lines.values()):
        return Increases(DENSE_LOSS, why_not="that takes two checkpoints of each size and seed, of unequal training")
    low = max(line["dense_loss"].min() for line in lines.values())
    high = min(line["dense_loss"].max() for line in lines.values())
    if low > high:
        return Increases(DENSE_LOSS, why_not="the ranges of their dense losses do not overlap")
    places = {
        place: around(low, line["dense_loss"].to_numpy(float), list(line["parent"])) for place, line in lines.items()
    }
    return _answer(compression, DENSE_LOSS, f"{low:.2f} {loss_of(compression).short_unit}", places, sample)


def _by_place(rows: pd.DataFrame) -> dict[Place, pd.DataFrame]:
    return {(str(name), int(str(seed))): of_place for (name, seed), of_place in rows.groupby(["series", "seed"])}


def _one_series_per_size(rows: pd.DataFrame) -> list[str]:
    """Of variants of one shape that with the lowest dense loss; from the smallest to the largest."""
    best = rows.groupby(["shape", "series"])["dense_loss"].min().reset_index().sort_values(["dense_loss", "series"])
    kept = set(best.drop_duplicates("shape")["series"])
    return [name for name in by_size(rows) if name in kept]


@dataclass(frozen=True)
class _SharedRecipe:
    """A recipe by which the checkpoints of all places were compressed."""

    family: str
    """What it does, apart from how."""
    cells: Mapping[Place, Weights]
    """Place -> compress cells and their weights."""
    costs: Mapping[Place, float]
    """Place -> loss increase."""


def _answer(compression: pd.DataFrame, equal: str, where: str, places: Places, sample: Sample) -> Increases:
    sizes = tuple(name for name in by_size(compression) if name in {series for series, _ in places})
    destroyed = DESTROYED * loss_of(compression).broken
    recipes = [recipe for recipe in _shared_recipes(compression, places) if min(recipe.costs.values()) < destroyed]
    if not recipes:
        return Increases(equal, why_not="the sizes share no recipe under which any of them still works")
    costs = {place: np.array([recipe.costs[place] for recipe in recipes]) for place in places}
    draws = {place: sample.draws("increase", [recipe.cells[place] for recipe in recipes]) for place in places}
    members: dict[str, list[int]] = {}
    for index, recipe in enumerate(recipes):
        members.setdefault(recipe.family, []).append(index)
    families = {
        family: {size: _median(size, chosen, costs, draws) for size in sizes} for family, chosen in members.items()
    }
    overall = {size: _mean_of([medians[size] for medians in families.values()]) for size in sizes}
    return Increases(equal, where, "", sizes, families, overall)


def _shared_recipes(compression: pd.DataFrame, places: Places) -> list[_SharedRecipe]:
    """The recipes, but for the dense one, that all checkpoints of ``places`` have."""
    changed = compression[~is_dense(compression)]
    increase = {str(cell): float(value) for cell, value in changed.set_index("cell")["loss_increase"].items()}
    cells = {
        (str(parent), str(recipe)): [str(cell) for cell in made["cell"]]
        for (parent, recipe), made in changed.groupby(["parent", "recipe"])
    }
    parents = {parent for weights in places.values() for parent, _ in weights}
    recipes = []
    for row in changed[changed["parent"].isin(parents)].drop_duplicates("recipe").to_dict("records"):
        recipe = str(row["recipe"])
        if all((parent, recipe) in cells for parent in parents):
            means = {place: _compressed(weights, recipe, cells) for place, weights in places.items()}
            costs = {place: sum(share * increase[cell] for cell, share in mean) for place, mean in means.items()}
            recipes.append(_SharedRecipe(recipe_family(row), means, costs))
    return recipes


def _compressed(weights: Weights, recipe: str, cells: Mapping[tuple[str, str], list[str]]) -> Weights:
    """Compress cells and their weights: a recipe may have been run with several seeds."""
    by_parent = [(cells[parent, recipe], weight) for parent, weight in weights]
    return [(cell, weight / len(made)) for made, weight in by_parent for cell in made]


def _median(
    size: str, members: list[int], costs: Mapping[Place, Floats], draws: Mapping[Place, Floats | None]
) -> SeedMean:
    """Median increase of some recipes for one size: per seed, then the mean of the seeds."""
    places = [place for place in costs if place[0] == size]
    seeds = tuple(float(np.median(costs[place][members])) for place in places)
    moved = []
    for place, value in zip(places, seeds, strict=True):
        drawn = draws[place]
        if drawn is None:
            return SeedMean(seeds, None)
        moved.append(np.median(costs[place][members][:, None] + drawn[members], axis=0) - value)
    return SeedMean(seeds, np.mean(moved, axis=0))


def _mean_of(estimates: Sequence[SeedMean]) -> SeedMean:
    """The mean of estimates of equally many seeds."""
    seeds = tuple(float(value) for value in np.mean([estimate.seeds for estimate in estimates], axis=0))
    draws = [estimate.draws for estimate in estimates if estimate.draws is not None]
    return SeedMean(seeds, np.mean(draws, axis=0) if len(draws) == len(estimates) else None)
