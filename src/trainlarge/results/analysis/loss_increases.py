"""What the same recipes cost models of different sizes: at equal training time, equal steps and equal dense loss.

These are three questions. An increase grows with training, so a larger model that has learned less in the same time
may lose less for that reason alone. Recipes of one checkpoint are no independent observations: of each family of
recipes the median is taken per seed, of the families the mean; seeds and documents are what is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pandas as pd

from trainlarge.results.analysis.frontier import SAME_POINT
from trainlarge.results.analysis.intervals import Difference, Estimate, difference
from trainlarge.results.document_losses import Sample, Weights
from trainlarge.results.recipes import is_dense, recipe_family
from trainlarge.results.scores import loss_of
from trainlarge.results.series import by_size
from trainlarge.results.units import axis

DESTROYED = 2.0
"""A model counts as destroyed when its increase is this many times what breaks it (``Metric.broken``): who loses less
then says nothing."""

TIME, STEPS, DENSE_LOSS = "training time", "steps", "dense loss"
"""What is equal."""

Places = Mapping[tuple[str, int], Weights]
"""(Series, seed) -> checkpoints and their weights: two where a value is between them."""


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
    families: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """Family of recipes -> series -> median increase."""
    overall: dict[str, Estimate] = field(default_factory=dict)
    """Series -> mean over the families."""

    def comparisons(self, sample: Sample) -> dict[tuple[str, str, str], Difference]:
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
        _at(compression, TIME, _by_time(compression[compression["parent"].isin(timed)]), sample),
        _at(compression, STEPS, _by_steps(compression), sample),
        *_by_dense_loss(compression, sample),
    ]


def _by_time(rows: pd.DataFrame) -> tuple[str, pd.DataFrame] | str:
    """The largest budget in seconds that the most sizes have."""
    rows = rows[rows["budget_unit"] == "s"]
    sizes = rows.groupby("budget_value")["shape"].nunique()
    if sizes.max() < 2 or sizes.empty:
        return "no two sizes were compressed after the same budget in seconds"
    value = sizes.index[sizes == sizes.max()].max()
    chosen = rows[rows["budget_value"] == value]
    return str(chosen["budget"].iloc[0]), chosen


def _by_steps(rows: pd.DataFrame) -> tuple[str, pd.DataFrame] | str:
    """The largest number of steps, with one batch, after which the most sizes were compressed."""
    best: tuple[int, float, pd.DataFrame] | None = None
    for _, own in rows.groupby("batch"):
        for step in own["step"].unique():
            near = own[(np.log(own["step"].astype(float)) - np.log(float(step))).abs() < SAME_POINT / 2]
            found = near["shape"].nunique(), float(step), near
            best = found if best is None or found[:2] > best[:2] else best
    if best is None or best[0] < 2:
        return "no two sizes were compressed after the same number of steps of one batch"
    return axis("step").write(best[1]), best[2]


def _at(compression: pd.DataFrame, equal: str, chosen: tuple[str, pd.DataFrame] | str, sample: Sample) -> Increases:
    if isinstance(chosen, str):
        return Increases(equal, why_not=chosen)
    where, rows = chosen
    rows = rows[rows["series"].isin(_one_series_per_size(rows))]
    places = {
        key: [(parent, 1 / own["parent"].nunique()) for parent in own["parent"].unique()]
        for key, own in _by_seed(rows).items()
    }
    return _answer(compression, equal, where, places, sample)


def _by_dense_loss(compression: pd.DataFrame, sample: Sample) -> list[Increases]:
    """All sizes at one dense loss if there is one that all reach, else neighbours in size that share one."""
    order = _one_series_per_size(compression)
    found = [_at_dense_loss(compression, group, sample) for group in ([order] if len(order) > 1 else [])]
    if found and found[0].why_not and len(order) > 2:
        found = [_at_dense_loss(compression, list(pair), sample) for pair in pairwise(order)]
        answered = [some for some in found if not some.why_not]
        found = answered or [Increases(DENSE_LOSS, why_not=found[0].why_not)]
    return found or [Increases(DENSE_LOSS, why_not="only one size was compressed")]


def _at_dense_loss(compression: pd.DataFrame, names: list[str], sample: Sample) -> Increases:
    """The lowest dense loss that every seed of all of ``names`` reaches between two of its checkpoints."""
    parents = compression[compression["series"].isin(names)].drop_duplicates("parent")
    lines = {key: own.sort_values("dense_loss") for key, own in _by_seed(parents).items()}
    if any(len(own) < 2 for own in lines.values()):
        return Increases(DENSE_LOSS, why_not="that takes two checkpoints of each size and seed, of unequal training")
    low = max(own["dense_loss"].min() for own in lines.values())
    high = min(own["dense_loss"].max() for own in lines.values())
    if low > high:
        return Increases(DENSE_LOSS, why_not="the ranges of their dense losses do not overlap")
    places = {key: _between(own, low) for key, own in lines.items()}
    return _answer(compression, DENSE_LOSS, f"{low:.2f} {loss_of(compression).short_unit}", places, sample)


def _by_seed(rows: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    return {(str(name), int(cast(int, seed))): own for (name, seed), own in rows.groupby(["series", "seed"])}


def _between(own: pd.DataFrame, dense_loss: float) -> Weights:
    place = float(np.interp(dense_loss, own["dense_loss"], np.arange(len(own))))
    left = min(int(place), len(own) - 1)
    share, cells = place - left, list(own["parent"])
    return [(cells[left], 1 - share), *([(cells[left + 1], share)] if share else [])]


def _one_series_per_size(rows: pd.DataFrame) -> list[str]:
    """Of variants of one shape that with the lowest dense loss; from the smallest to the largest."""
    best = rows.groupby(["shape", "series"])["dense_loss"].min().reset_index().sort_values(["dense_loss", "series"])
    kept = set(best.drop_duplicates("shape")["series"])
    return [name for name in by_size(rows) if name in kept]


def _answer(compression: pd.DataFrame, equal: str, where: str, places: Places, sample: Sample) -> Increases:
    sizes = tuple(name for name in by_size(compression) if name in {series for series, _ in places})
    changed = compression[~is_dense(compression)]
    cells = {key: list(own["cell"]) for key, own in changed.groupby(["parent", "recipe"])}
    wanted = {parent for weights in places.values() for parent, _ in weights}
    recipes = changed[changed["parent"].isin(wanted)].drop_duplicates("recipe")
    shared = [
        row
        for row in recipes.to_dict("records")
        if all((parent, row["recipe"]) in cells for weights in places.values() for parent, _ in weights)
    ]
    increase = changed.set_index("cell")["loss_increase"].to_dict()
    values = {key: [_mean(weights, row["recipe"], cells) for row in shared] for key, weights in places.items()}
    costs = {key: np.array([sum(w * increase[c] for c, w in some) for some in means]) for key, means in values.items()}
    destroyed = DESTROYED * loss_of(compression).broken
    alive = [place for place in range(len(shared)) if min(cost[place] for cost in costs.values()) < destroyed]
    if not alive:
        return Increases(equal, why_not="the sizes share no recipe under which any of them still works")
    names = [recipe_family(shared[place]) for place in alive]
    costs = {key: cost[alive] for key, cost in costs.items()}
    draws = {key: sample.draws("increase", [means[place] for place in alive]) for key, means in values.items()}
    members = {family: [i for i, name in enumerate(names) if name == family] for family in dict.fromkeys(names)}
    families = {family: {size: _median(size, own, costs, draws) for size in sizes} for family, own in members.items()}
    overall = {size: _mean_of([some[size] for some in families.values()]) for size in sizes}
    return Increases(equal, where, "", sizes, families, overall)


def _mean(weights: Weights, recipe: str, cells: Mapping[Any, list[str]]) -> Weights:
    """Compress cells and their weights: a recipe may have been run with several seeds."""
    return [(cell, weight / len(own)) for parent, weight in weights for own in [cells[parent, recipe]] for cell in own]


def _median(
    size: str,
    members: list[int],
    costs: Mapping[tuple[str, int], np.ndarray],
    draws: Mapping[tuple[str, int], np.ndarray | None],
) -> Estimate:
    """Median increase of some recipes for one size: per seed, then the mean of the seeds."""
    keys = [key for key in costs if key[0] == size]
    seeds = tuple(float(np.median(costs[key][members])) for key in keys)
    moved = []
    for key, value in zip(keys, seeds, strict=True):
        drawn = draws[key]
        if drawn is None:
            return Estimate(seeds, None)
        moved.append(np.median(costs[key][members][:, None] + drawn[members], axis=0) - value)
    return Estimate(seeds, np.mean(moved, axis=0))


def _mean_of(estimates: Sequence[Estimate]) -> Estimate:
    seeds = tuple(float(value) for value in np.mean([estimate.seeds for estimate in estimates], axis=0))
    draws = [estimate.draws for estimate in estimates if estimate.draws is not None]
    return Estimate(seeds, np.mean(draws, axis=0) if len(draws) == len(estimates) else None)
