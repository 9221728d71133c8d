"""What the compress cells show: what costs nothing, who loses less, and who has the lowest loss at equal size."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pandas as pd

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.analysis.intervals import NO_DOCUMENTS, Difference, Estimate, above_zero, difference, number
from trainlarge.results.analysis.loss_increases import Increases
from trainlarge.results.recipes import is_dense
from trainlarge.results.report.finding import Finding, listed, runs, seeds_in_words
from trainlarge.results.series import by_size, last_budget
from trainlarge.results.units import axis

Costs = list[tuple[dict[Any, Any], Difference]]
"""Compressed models and what compression costs each."""
NARROW = 1.25
"""A range of sizes whose ends differ by less than this factor is not worth a word."""


def compression_findings(evidence: Evidence) -> list[Finding]:
    """All findings of this file; one sentence where nothing was compressed."""
    if evidence.known.empty:
        return [Finding("Nothing was compressed yet.", found=False)]
    left_out = on_the_plateau(evidence)
    if evidence.compressed.empty:
        return left_out
    return [
        *left_out,
        *nearest_to_dense(evidence),
        *larger_loses_less(evidence),
        *equal_bytes(evidence),
        *beats_dense(evidence),
    ]


def on_the_plateau(evidence: Evidence) -> list[Finding]:
    """Which checkpoints were compressed before they had learned more than token frequencies."""
    left = evidence.known[~evidence.known["cell"].isin(evidence.compressed["cell"])].drop_duplicates("parent")
    if left.empty:
        return []
    rows, loss = left.drop_duplicates(["series", "budget"]).to_dict("records"), evidence.loss
    names = listed(f"{row['series']} after {row['budget']}" for row in rows)
    frequency = number(float(left["token_frequency_loss"].iloc[0]), 2)
    text = (
        f"Left out of all comparisons of compressed models: {names}. Their dense loss is not {loss.amount(loss.tie)} "
        f"below that of token frequencies ({frequency} {loss.short_unit})."
    )
    return [Finding(text, found=False)]


def larger_loses_less(evidence: Evidence) -> list[Finding]:
    """What the same recipes cost each size: at equal training time, at equal steps and at equal dense loss."""
    return [_increase(evidence, some) for some in evidence.increases]


def _increase(evidence: Evidence, some: Increases) -> Finding:
    if some.why_not:
        return Finding(f"Loss increases at equal {some.equal} cannot be compared: {some.why_not}.", found=False)
    decimals = 2 if max(estimate.value for estimate in some.overall.values()) >= 0.1 else 3
    means = listed(f"{number(some.overall[name].value, decimals)} ({name})" for name in some.sizes)
    seeds = min(len(estimate.seeds) for estimate in some.overall.values())
    families = len(some.families)
    text = (
        f"At equal {some.equal} ({some.where}; {seeds_in_words(seeds)} per size), the same recipes cost {means} "
        f"{evidence.loss.short_unit}: median of each family of recipes, mean of "
        f"{_counted(families, 'family', 'families')}. "
    )
    parts, gaps = [], []
    for small, large in pairwise(some.sizes):
        gap = evidence.family[some.equal, small, large]
        gaps.append(gap)
        fewer = sum(own[large].value < own[small].value for own in some.families.values())
        shown = gap if gap.value >= 0 else gap.turned()
        word = "less" if gap.value >= 0 else "more"
        parts.append(f"{large} loses {word} than {small} by {shown}, and less in {fewer} of {families}")
    is_found = any(gap.is_clear and gap.value > 0 for gap in gaps) and all(gap.value > 0 for gap in gaps)
    return Finding(f"{text}{'; '.join(parts)}.", found=is_found)


def equal_bytes(evidence: Evidence, size: str = "file_bytes") -> list[Finding]:
    """Which series has the lowest loss at every file size, among models of one budget that still work."""
    rows, place = last_budget(evidence.compressed), axis(size)
    cost = f"a cost below {evidence.loss.amount(evidence.loss.broken)}"
    rows = rows[rows["loss_increase"] < evidence.loss.broken]
    if rows.empty:
        return [Finding(f"No model of the last budget was compressed at {cost}.", found=False)]
    order, models = by_size(rows), _models(rows, size)
    if len(order) < 2:
        return [Finding(f"Only {order[0]} was compressed after {_budget(rows)}: sizes are not compared.", found=False)]
    limits = sorted({limit for _, own in models.groupby("series") for limit in frontier(own, size)[size]})
    winners = [_winner(evidence, models, limit, size, order) for limit in limits]
    found = _wide(runs(winners), limits)
    starts = [place.write(limits[first]) for _, first, _ in found]
    ends = [f"to {start}" for start in starts[1:]] + ["up"]
    parts = [f"{name} from {start} {end}" for (name, _, _), start, end in zip(found, starts, ends, strict=True)]
    known = f"trained for {_budget(rows)}, compressed at {cost}"
    text = (
        f"At equal {place.words} ({listed(order)}; {known}), lowest measured loss: {'; '.join(parts)}. "
        f"Order not tested: the best of many recipes is chosen on the evaluation set itself."
    )
    sentences = [Finding(text)]
    never = [name for name in order if not any(name in winner.split(" or ") for winner, _, _ in found)]
    if never:
        verb = "has" if len(never) == 1 else "have"
        sentences.append(
            Finding(f"{listed(never)} {verb} the lowest loss at no file size after {_budget(rows)}.", found=False)
        )
    return sentences


def beats_dense(evidence: Evidence, size: str = "file_bytes") -> list[Finding]:
    """For each series but the largest: a larger one, compressed, that is smaller and better than it is dense."""
    rows, write = last_budget(evidence.compressed), axis(size).write
    models, order, sentences, unit = _models(rows, size), by_size(rows), [], evidence.loss.short_unit
    for index, name in enumerate(order[:-1]):
        dense = models[(models["series"] == name) & is_dense(models)]
        if dense.empty:
            continue
        base = dense.iloc[0]
        larger = models[models["series"].isin(order[index + 1 :]) & (models[size] <= base[size])]
        better = larger[larger["loss"] < base["loss"]].nsmallest(1, "loss")
        what = f"{name} dense ({base['loss']:.2f} {unit} at {write(base[size])})"
        if better.empty:
            text = f"No larger model compresses to something smaller and better than {what}, after {_budget(rows)}."
            sentences.append(Finding(text, found=False))
            continue
        best = better.iloc[0]
        gap = _difference(evidence, base, best)
        text = f"{_model(best, size, unit)} is smaller and better than {what} by {gap}, both after {_budget(rows)}."
        sentences.append(Finding(text, found=gap.low > 0))
    return sentences


def nearest_to_dense(evidence: Evidence, size: str = "file_bytes") -> list[Finding]:
    """What compression costs the best dense model: first what costs nothing measurable, then the next smaller file."""
    rows = evidence.compressed
    dense, write = _models(rows[is_dense(rows)], size), axis(size).write
    if dense.empty:
        return []
    best, loss = dense.nsmallest(1, "loss").iloc[0], evidence.loss
    own = rows[(rows["series"] == best["series"]) & (rows["budget"] == best["budget"])]
    smaller = _models(own[~is_dense(own)], size)
    smaller = smaller[smaller[size] < best[size]].sort_values(size)
    where = f"{best['loss']:.2f} {loss.short_unit} at {write(best[size])}"
    name = f"The best dense model is {best['series']} after {best['budget']} ({where})"
    sample = evidence.compressed_sample
    costs = [(row, above_zero(_estimate(evidence, row, "loss_increase"), sample)) for row in smaller.to_dict("records")]
    free = [(row, cost) for row, cost in costs if cost.high < loss.negligible]
    # What cannot be told from nothing comes first, the smallest of it; what is only small is second best.
    free.sort(key=lambda found: found[1].low > 0)
    if not costs:
        return [Finding(f"{name}; nothing smaller was made of it.", found=False)]
    if not free:
        is_unknown = all(math.isnan(cost.low) for _, cost in costs)
        text = (
            f"whether a smaller file of it costs nothing was not tested: {NO_DOCUMENTS}"
            if is_unknown
            else f"every smaller file of it may cost {loss.amount(loss.negligible)} or more"
        )
        sentences = [Finding(f"{name}; {text}.", found=False)]
    else:
        row, cost = free[0]
        what = "nothing measurable" if cost.low <= 0 else f"less than {loss.amount(loss.negligible)}"
        text = (
            f"{name}. {row['recipe']} costs it {what} at {_factor(best, row, size)}: {_cost(cost)}; the interval of "
            f"{len(free)} of {_counted(len(costs), 'recipe', 'recipes')} ends below "
            f"{loss.amount(loss.negligible)}."
        )
        sentences = [Finding(text)]
    return [*sentences, *_next_smaller(evidence, best, costs, free, size)]


def _next_smaller(evidence: Evidence, best: pd.Series, costs: Costs, free: Costs, size: str) -> list[Finding]:
    """The cheapest file that is smaller than the smallest one that costs nothing."""
    limit = free[0][0][size] if free else best[size]
    paid = [(row, cost) for row, cost in costs if row[size] < limit and row["loss_increase"] < evidence.loss.broken]
    if not paid:
        return []
    row, cost = min(paid, key=lambda found: found[0]["loss_increase"])
    below = f"below {axis(size).write(limit)}" if free else "smaller"
    model = f"{best['series']} after {best['budget']}"
    return [
        Finding(
            f"Of files of {model} {below}, {row['recipe']} costs least, at {_factor(best, row, size)}: {_cost(cost)}."
        )
    ]


def _cost(cost: Difference) -> str:
    return (
        f"{'+' if cost.value >= 0 else ''}{number(cost.value, max(cost.precision, 3))} {cost.unit} ({cost.interval()})"
    )


def _factor(best: pd.Series, row: dict[Any, Any], size: str) -> str:
    return f"{best[size] / row[size]:.1f} times fewer bytes ({axis(size).write(row[size])})"


def _models(rows: pd.DataFrame, size: str) -> pd.DataFrame:
    """One row per series, budget and recipe: means over seeds, and the ``members`` of each, compress cells by seed."""
    keys = ["series", "budget", "recipe"]
    found = rows.groupby(keys, sort=False).agg(
        loss=("loss", "mean"),
        loss_increase=("loss_increase", "mean"),
        parameters=("parameters", "first"),
        members=("cell", list),
        cell=("cell", "first"),
        **{size: (size, "mean")},
    )
    return found.reset_index()


def _estimate(evidence: Evidence, model: Any, column: str) -> Estimate:
    """Mean over the seeds of a model's ``loss`` or ``loss_increase``."""
    rows = evidence.compressed[evidence.compressed["cell"].isin(model["members"])]
    means = rows.groupby("seed")[column].mean()
    counts = rows["seed"].map(rows["seed"].value_counts())
    shares = [(cell, 1 / (count * len(means))) for cell, count in zip(rows["cell"], counts, strict=True)]
    draws = evidence.compressed_sample.draws({"loss": "loss", "loss_increase": "increase"}[column], [shares])
    return Estimate(tuple(map(float, means)), None if draws is None else draws[0])


def _difference(evidence: Evidence, left: Any, right: Any) -> Difference:
    """Loss of ``left`` less that of ``right``; no part of the tests of the report, since one was chosen by its loss."""
    first, second = (_estimate(evidence, model, "loss") for model in (left, right))
    found = difference(first, second, evidence.compressed_sample)
    return found if found.p is None else replace(found, p=None, why_not="chosen by its loss")


def _wide(spans: list[tuple[str, int, int]], limits: list[float]) -> list[tuple[str, int, int]]:
    """``spans`` without the narrow ones, which go to the winner before them."""
    labels: list[str] = []
    for index, (name, first, last) in enumerate(spans):
        is_narrow = 0 < index < len(spans) - 1 and limits[last + 1] < NARROW * limits[first]
        labels += [labels[-1] if is_narrow else name] * (last - first + 1)
    return runs(labels)


def _winner(evidence: Evidence, models: pd.DataFrame, limit: float, size: str, order: list[str]) -> str:
    """The series of lowest loss among files of at most ``limit`` bytes; two where the interval covers 0."""
    fitting = models[models[size] <= limit].sort_values(["loss", "cell"]).drop_duplicates("series")
    if len(fitting) > 1 and _difference(evidence, fitting.iloc[1], fitting.iloc[0]).covers_zero:
        return " or ".join(sorted(map(str, fitting["series"].iloc[:2]), key=order.index))
    return str(fitting["series"].iloc[0])


def _model(row: Any, size: str, unit: str) -> str:
    at = axis(size).write(row[size])
    return f"{row['series']} after {row['budget']} with {row['recipe']} ({row['loss']:.2f} {unit} at {at})"


def _budget(rows: pd.DataFrame) -> str:
    return str(rows["budget"].iloc[0])


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
