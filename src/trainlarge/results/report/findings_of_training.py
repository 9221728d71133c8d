"""What the train cells show: which size is best, and where sizes change places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.frontier import crossings
from trainlarge.results.analysis.intervals import Difference, number
from trainlarge.results.analysis.plateau import frequency_loss_of, on_plateau
from trainlarge.results.analysis.seed_lines import SeedLines, spans
from trainlarge.results.comparable import CLOCKS, differences, on_axis, timed
from trainlarge.results.report.finding import Finding, listed, runs, seeds_in_words
from trainlarge.results.series import by_size
from trainlarge.results.units import Scale, scale_of

DISTURBED = 1.15
"""Ratio between the largest and the smallest ``disturbance`` of cells from which on their clocks are doubtful."""
NAMED_PAIRS = 4
"""Pairs that one sentence names."""
MOST_SIZES = 6
"""Up to so many sizes are named one by one."""


def training_findings(evidence: Evidence) -> list[Finding]:
    """All findings of this file, for every axis on which the cells can be compared."""
    cells = evidence.cells
    if cells.empty:
        return []
    if cells["series"].nunique() < 2:
        return [
            Finding(f"Only {cells['series'].iloc[0]} was trained, so there is nothing to compare.", is_result=False)
        ]
    best = [finding for x in evidence.axes for finding in best_sizes(evidence, x)]
    changes = [
        finding for x in evidence.axes for finding in [*changed_places(evidence, x), *not_overtaken(evidence, x)]
    ]
    return [*best, *per_step(evidence), *changes, *shared_devices(cells), *clocks(cells)]


def best_sizes(evidence: Evidence, x: str) -> list[Finding]:
    """Which series has the lowest loss at equal ``x``: a sentence for each run of points with the same sizes."""
    lines_of, place = evidence.lines(x), scale_of(x)
    stretches = spans(lines_of)
    if not stretches:
        return [Finding(f"No two sizes were trained for equal {place.words}.", is_result=False)]
    return [_best_of(evidence, x, names, points) for names, points in stretches]


def _best_of(evidence: Evidence, x: str, names: tuple[str, ...], points: list[float]) -> Finding:
    lines_of, place = evidence.lines(x), scale_of(x)
    labels = [_leader(evidence, lines_of, names, point) for point in points]
    none = f"none ({evidence.frequencies} alone do as well)"
    parts = [f"{label or none} {_span(place, points[first], points[last])}" for label, first, last in runs(labels)]
    sizes = listed(names) if len(names) <= MOST_SIZES else f"{len(names)} sizes from {names[0]} to {names[-1]}"
    share = f", {len(names)} of {len(lines_of.order)} sizes" if len(names) < len(lines_of.order) else ""
    text = f"At equal {place.words} ({sizes}{share}), lowest measured loss: {'; '.join(parts)}."
    if not labels[-1]:
        return Finding(text, is_result=False)
    end = points[-1]
    best, second = _ranked(lines_of, names, end)[:2]
    lead = _gap(evidence, x, second, best, end)
    return Finding(f"{text} At {_write(place, end)}, {best} is ahead of {second} by {lead}.")


def changed_places(evidence: Evidence, x: str) -> list[Finding]:
    """One sentence for each pair of series that changes places clearly; one for all whose lines cross otherwise."""
    place = scale_of(x)
    table = crossings(on_axis(evidence.cells, x), x, tie=0.0)
    sentences, unclear = [], []
    for (before, after), rows in table.groupby(["before", "after"], sort=False):
        near = place.write(float(rows["x"].iloc[-1]))
        (start, first), (end, last) = _ends(evidence, x, str(before), str(after))
        gaps = f"at {_write(place, start)} {_standing(first)}, at {_write(place, end)} {_standing(last)}"
        if len(rows) == 1 and first.is_clear and last.is_clear and first.value < 0 < last.value:
            sentences.append(Finding(f"{after} clearly overtakes {before} near {near} of equal {place.words}: {gaps}."))
        else:
            unclear.append(f"{after} falls below {before} near {near}: {gaps}{_untested(last)}")
    if unclear:
        more = f"; and {len(unclear) - NAMED_PAIRS} pairs more" if len(unclear) > NAMED_PAIRS else ""
        text = f"Measured lines cross at equal {place.words}, without proof of the order on both sides: "
        sentences.append(Finding(f"{text}{'; '.join(unclear[:NAMED_PAIRS])}{more}.", is_result=False))
    return sentences


def not_overtaken(evidence: Evidence, x: str) -> list[Finding]:
    """Which larger series stay behind the best smaller one to the end, and how far."""
    lines_of, place = evidence.lines(x), scale_of(x)
    sentences = []
    for index, larger in enumerate(lines_of.order[1:], start=1):
        rival = _rival(evidence, x, lines_of.order[:index], larger)
        if rival is None:
            continue
        (start, first), (end, last) = _ends(evidence, x, rival, larger)
        if last.value >= 0:
            continue
        before = f"; at {_write(place, start)}, {_standing(first)}" if start < end else ""
        text = f"{larger} does not overtake {rival} by {_write(place, end)} at equal {place.words}: {_standing(last)}"
        sentences.append(Finding(f"{text}{before}{_untested(last)}.", is_result=False))
    if len(sentences) > MOST_SIZES:
        more = f"{len(sentences) - NAMED_PAIRS} more larger sizes do not overtake a smaller one at equal {place.words}."
        return [*sentences[:NAMED_PAIRS], Finding(more, is_result=False)]
    return sentences


def per_step(evidence: Evidence) -> list[Finding]:
    """Whether larger models have the lower loss after equal steps on the trunks, before the learning rate decays."""
    table = trunk_losses(evidence)
    if table.empty:
        return []
    order = [name for name in by_size(evidence.cells) if name in table]
    falls = [all(low > high for low, high in pairwise(row)) for row in table[order].to_numpy()]
    last, steps = table[order].iloc[-1], [scale_of("step").write(float(step)) for step in table.index]
    losses = listed(f"{number(last[name], 2)} ({name})" for name in order)
    seeds = evidence.cells.groupby("series")["seed"].nunique().reindex(order).min()
    where = f"at {steps[0]}" if len(steps) == 1 else f"from {steps[0]} to {steps[-1]}"
    text = (
        f"At equal steps on the trunks (constant rate, {where}), each larger size has the lower loss at "
        f"{sum(falls)} of {len(falls)} points: {losses} {evidence.loss.short_unit} at {steps[-1]} "
        f"(mean of {seeds_in_words(int(seeds))}; order not tested: curves keep no losses per document)."
    )
    return [Finding(text, is_result=sum(falls) > len(falls) / 2)]


def trunk_losses(evidence: Evidence) -> pd.DataFrame:
    """Mean losses over seeds at the steps that all trunks have and where one has left the plateau.

    Returns:
        Index: steps, ascending; one column per series. Empty where trunks share no step or batches differ.
    """
    curves, cells = evidence.frames.curves, evidence.cells
    if cells["batch"].nunique() > 1:
        return pd.DataFrame()
    rows = curves[(curves["part"] == "trunk") & curves["loss"].notna()].drop_duplicates(["series", "seed", "step"])
    frequency_loss = rows["cell"].map(cells.set_index("cell")["frequency_loss"])
    table = rows.assign(learned=~on_plateau(rows["loss"], frequency_loss, evidence.loss)).groupby(["step", "series"])
    losses, learned = table["loss"].mean().unstack(), table["learned"].any().unstack()
    if losses.shape[1] < 2:
        return pd.DataFrame()
    whole = losses.notna().all(axis=1)
    return losses[whole & learned.fillna(False).astype(bool).any(axis=1)]


def shared_devices(cells: pd.DataFrame) -> list[Finding]:
    """Which cells have no training time, since they shared a device on purpose or were resumed in another way."""
    shared, mixed = cells["per_device"] > 1, cells["mixed"].astype(bool)
    reasons = {
        "they shared a device (launcher.per_device)": shared.sum(),
        "a resume changed their device or implementation": (mixed & ~shared).sum(),
    }
    text = "Training times of {} of {} cells are left out: {}."
    return [Finding(text.format(left, len(cells), why), is_result=False) for why, left in reasons.items() if left]


def clocks(cells: pd.DataFrame) -> list[Finding]:
    """Why training times are not compared, or how far they can be trusted, where the device was disturbed."""
    cells = timed(cells)
    mixed, ratio = differences(cells, CLOCKS), cells["disturbance"]
    if mixed:
        return [Finding(f"Training times are not compared: cells differ in {mixed}.", is_result=False)]
    if ratio.empty or ratio.max() < DISTURBED * ratio.min():
        return []
    span = f"{ratio.min():.2f} to {ratio.max():.2f} times"
    text = (
        f"Measured training time is {span} the modelled one: other work disturbed the device, and what holds at equal "
        "training time is uncertain by as much."
    )
    return [Finding(text, is_result=False)]


def _leader(evidence: Evidence, lines_of: SeedLines, names: tuple[str, ...], point: float) -> str:
    """The series of lowest loss at ``point``; two where the interval of their difference covers 0.

    Empty where no size has learned more than frequencies.
    """
    best, second = _ranked(lines_of, names, point)[:2]
    frequency_loss = frequency_loss_of(evidence.cells)
    if frequency_loss is not None and _loss(lines_of, best, point) > frequency_loss - evidence.loss.tie:
        return ""
    if lines_of.difference(second, best, point).covers_zero:
        return " or ".join(sorted((best, second), key=lines_of.order.index))
    return best


def _ranked(lines_of: SeedLines, names: tuple[str, ...], point: float) -> list[str]:
    return sorted(names, key=lambda name: (_loss(lines_of, name, point), lines_of.order.index(name)))


def _loss(lines_of: SeedLines, name: str, point: float) -> float:
    estimate = lines_of.at(name, point)
    return math.inf if estimate is None else estimate.value


def _gap(evidence: Evidence, x: str, left: str, right: str, point: float) -> Difference:
    """``left - right`` at ``point`` with its verdict, one of the comparisons of the report."""
    if (x, left, right, point) in evidence.family:
        return evidence.family[x, left, right, point]
    return evidence.family[x, right, left, point].turned()


def _ends(evidence: Evidence, x: str, before: str, after: str) -> list[tuple[float, Difference]]:
    """The first and the last point that both have, with ``before - after`` there: above 0 where ``after`` is ahead."""
    points = evidence.lines(x).common((before, after))
    return [(point, _gap(evidence, x, before, after, point)) for point in (points[0], points[-1])]


def _rival(evidence: Evidence, x: str, smaller: Sequence[str], larger: str) -> str | None:
    """The best of ``smaller`` at the last point that it shares with ``larger``; of those that share the latest."""
    ends = {name: points[-1] for name in smaller if (points := evidence.lines(x).common((name, larger)))}
    latest = [name for name, end in ends.items() if end == max(ends.values())]
    return min(latest, key=lambda name: _loss(evidence.lines(x), name, ends[name]), default=None)


def _standing(gap: Difference) -> str:
    """``0.08 nats behind (95 % interval ...)`` of a gap that is above 0 where one is ahead."""
    side, shown = ("ahead", gap) if gap.value > 0 else ("behind", gap.turned())
    remark = "" if math.isnan(shown.low) else (shown.interval() if shown.why_not else shown.remark())
    return f"{number(shown.value, gap.precision)} {gap.unit} {side}{f' ({remark})' if remark else ''}"


def _untested(gap: Difference) -> str:
    return f", order not tested: {gap.why_not}" if gap.why_not else ""


def _span(place: Scale, first: float, last: float) -> str:
    """Where something holds: ``at 60 s``, ``from 15 s to 60 s``."""
    low, high = _write(place, first), _write(place, last)
    return f"at {low}" if low == high else f"from {low} to {high}"


def _write(place: Scale, point: float) -> str:
    """A point of an axis, which is a logarithm, with its unit."""
    return place.write(math.exp(point))
