"""What the train cells show: which size is best, and where sizes change places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from trainlarge.results.axes import Axis, axis
from trainlarge.results.comparable import CLOCK_COLUMNS, CLOCKS, differences, on_axis, timed
from trainlarge.results.finding import Finding, by_size, runs
from trainlarge.results.frontier import SAME_POINT, TIE, crossings, leaders

TRAINING_AXES = ("model_seconds", "flops", "step")
"""What sizes are compared against."""
DISTURBED = 1.15
"""Ratio between the largest and the smallest ``disturbance`` of cells from which on their clocks are doubtful."""


def training_findings(cells: pd.DataFrame) -> list[Finding]:
    """All findings of this file, for every axis on which the cells can be compared."""
    if cells.empty:
        return []
    if cells["series"].nunique() < 2:
        return [Finding(f"Only {cells['series'].iloc[0]} was trained, so there is nothing to compare.", found=False)]
    places = {x: on_axis(cells, x) for x in TRAINING_AXES if _is_comparable(cells, x)}
    best = [finding for x, some in places.items() for finding in best_sizes(some, x)]
    changes = [finding for x, some in places.items() for finding in [*changed_places(some, x), *not_overtaken(some, x)]]
    return [*best, *changes, *shared_devices(cells), *clocks(cells), noise(cells)]


def best_sizes(cells: pd.DataFrame, x: str, tie: float = TIE) -> list[Finding]:
    """Which series is best at equal ``x``, from where to where; only as far as the most series can be compared."""
    table, place, order = leaders(cells, x, tie), axis(x), by_size(cells)
    if table.empty:
        return [Finding(f"No two sizes were trained for equal {place.words}.", found=False)]
    table = table[table["compared"] == table["compared"].max()].reset_index(drop=True)
    labels = [_leader(row, order) for row in table.to_dict("records")]
    parts = [f"{label} {_span(table['x'], first, last, place)}" for label, first, last in runs(labels)]
    compared = int(table["compared"].iloc[0])
    some = f" ({compared} of {len(order)} sizes compared)" if compared < len(order) else ""
    return [Finding(f"At equal {place.words}{some}, lowest loss: {'; '.join(parts)}.")]


def changed_places(cells: pd.DataFrame, x: str, tie: float = TIE) -> list[Finding]:
    """One sentence for each pair of series that changes places clearly; one for all that do within a tie."""
    table, place = crossings(cells, x, tie), axis(x)
    clear, unclear = table[table["sure"]], table[~table["sure"]]
    sentences = [Finding(_change(row, place)) for row in clear.to_dict("records")]
    if len(unclear):
        pairs = dict.fromkeys(
            f"{row['after']} past {row['before']} (near {place.write(row['x'])})" for row in unclear.to_dict("records")
        )
        sentences.append(
            Finding(
                f"Changes of place at equal {place.words} within a tie (leads below {tie:g} nats): {'; '.join(pairs)}.",
                found=False,
            )
        )
    return sentences


def not_overtaken(cells: pd.DataFrame, x: str, tie: float = TIE) -> list[Finding]:
    """Which larger series do not overtake the best smaller one within the budget, and how far they are behind."""
    table, place, order = crossings(cells, x, tie), axis(x), by_size(cells)
    sentences = []
    for index, larger in enumerate(order[1:], start=1):
        gaps = _behind(cells, x, order[:index], larger)
        if gaps and gaps[-1][1] > 0:
            sentences.append(Finding(_still_behind(larger, gaps, place, tie), found=False))
    if not table["sure"].any():
        sentences.append(
            Finding(f"No size clearly overtakes another at equal {place.words} within this budget.", found=False)
        )
    return sentences


def shared_devices(cells: pd.DataFrame) -> list[Finding]:
    """Which cells have no training time, since they shared a device on purpose or were resumed in another way."""
    shared, mixed = cells["per_device"] > 1, cells["mixed"].astype(bool)
    reasons = {
        "they shared a device (launcher.per_device)": shared.sum(),
        "a resume changed their device or implementation": (mixed & ~shared).sum(),
    }
    text = "Training times of {} of {} cells are left out: {}."
    return [Finding(text.format(left, len(cells), why), found=False) for why, left in reasons.items() if left]


def clocks(cells: pd.DataFrame) -> list[Finding]:
    """Why training times are not compared, or how far they can be trusted, where the device was disturbed."""
    cells = timed(cells)
    found, ratio = differences(cells, CLOCKS), cells["disturbance"]
    if found:
        return [Finding(f"Training times are not compared: cells differ in {found}.", found=False)]
    if ratio.max() < DISTURBED * ratio.min():
        return []
    span = f"{ratio.min():.2f} to {ratio.max():.2f} times"
    text = (
        f"Measured training time is {span} the modelled one: other work disturbed the device, and what holds at equal "
    )
    return [Finding(f"{text}training time is uncertain by as much.", found=False)]


def noise(cells: pd.DataFrame, tie: float = TIE) -> Finding:
    """How many seeds stand behind a number, and what is called a tie."""
    seeds = cells["seed"].nunique()
    how = "One seed" if seeds == 1 else f"{seeds} seeds, whose mean losses are compared"
    return Finding(f"{how}: differences below {tie:g} nats are called ties.", found=False)


def _is_comparable(cells: pd.DataFrame, x: str) -> bool:
    """Whether cells of at least two series can be held against each other at equal ``x``."""
    if x not in CLOCK_COLUMNS:
        return True
    return timed(cells)["series"].nunique() > 1 and not differences(timed(cells), CLOCKS)


def _leader(row: Mapping[Any, Any], order: list[str]) -> str:
    pair = sorted((row["best"], row["second"]), key=order.index)
    return f"{pair[0]} and {pair[1]} tie" if row["tie"] else row["best"]


def _span(x: pd.Series, first: int, last: int, place: Axis) -> str:
    low, high = place.write(x[first]), place.write(x[last])
    return f"at {low}" if low == high else f"from {low} to {high}"


def _change(row: Mapping[Any, Any], place: Axis) -> str:
    low, high, near = (place.write(row[name]) for name in ("low", "high", "x"))
    lead = " and takes the lead" if row["of_best"] else ""
    margins = f"{row['margin_low']:.2f} nats behind, then {row['margin_high']:.2f} ahead"
    where = f"between {low} and {high} of equal {place.words}, near {near}"
    return f"{row['after']} overtakes {row['before']}{lead} {where} ({margins})."


def _behind(cells: pd.DataFrame, x: str, smaller: list[str], larger: str) -> list[tuple[float, float, str]]:
    """``x``, how far ``larger`` is behind (nats) and the best of ``smaller`` in the end, wherever both are."""
    found = []
    for name in smaller:
        pair = leaders(cells[cells["series"].isin([name, larger])], x)
        found += [
            (row["x"], row["margin"] * (-1 if row["best"] == larger else 1), name) for row in pair.to_dict("records")
        ]
    end = max((point for point, _, _ in found), default=0.0) * (1 - SAME_POINT)
    rival = max(((gap, name) for point, gap, name in found if point >= end), default=(0.0, ""))[1]
    return sorted(row for row in found if row[2] == rival)


def _still_behind(larger: str, gaps: list[tuple[float, float, str]], place: Axis, tie: float) -> str:
    (start, first, rival), (end, last, _) = gaps[0], gaps[-1]
    verdict = "a tie" if last < tie else "clearly behind"
    trend = f"; at {place.write(start)} it was {first:.2f} behind" if first > 0 and start != end else ""
    until = f"at equal {place.words} by {place.write(end)}"
    return f"{larger} does not overtake {rival} {until}: {last:.2f} nats behind ({verdict}){trend}."
