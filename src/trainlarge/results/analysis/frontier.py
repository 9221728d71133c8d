"""Which cells are best: the frontier, who leads along an axis, and where the lead changes."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainlarge.results.scores import direction, loss_of
from trainlarge.results.training_cost import SAME_COST, training_cost

SAME_POINT = SAME_COST
"""Points closer than this share along an axis are one."""

Floats = NDArray[np.float64]
Line = tuple[Floats, Floats]
Lines = dict[str, Line]
"""Series -> (log x ascending, value), each of shape (points,)."""


def frontier(frame: pd.DataFrame, x: str, y: str = "loss") -> pd.DataFrame:
    """The rows that no other row beats on both axes: less of ``x``, better ``y``.

    A row is beaten by one that is at least as good on both axes and better on one. Of rows that are equal on both, the
    first by ``cell`` stays. Rows without a value are left out. Where ``x`` counts training, that of a compressed model
    is the one of its checkpoint and its recovery training together (``trainlarge.results.training_cost``).

    Args:
        frame: rows with a column ``cell``.
        x: less is better (``model_seconds``, ``flops``, ``tokens``, ``step``, ``file_bytes``, ...).
        y: ``loss`` or another metric of the task, which says whether less or more is better.

    Returns:
        Its rows in ascending order of ``x``.
    """
    sign = direction(frame, y)
    rows = frame.dropna(subset=[x, y]).assign(_y=lambda rows: sign * rows[y], _x=lambda rows: training_cost(rows, x))
    rows = rows.sort_values(["_x", "_y", "cell"], kind="stable")
    best_before = rows["_y"].cummin().shift(fill_value=np.inf)
    return rows[rows["_y"] < best_before].drop(columns=["_x", "_y"])


def envelope(cells: pd.DataFrame, x: str, y: str = "loss") -> pd.DataFrame:
    """The frontier of the series' lines: columns ``x`` and ``y``, the best value of any line wherever it improves."""
    series, sign = lines(cells, x, y), direction(cells, y)
    grid = np.array(grid_points(series))
    best = np.full(len(grid), np.inf)
    for points, values in series.values():
        ends = np.searchsorted(grid, [points[0] - SAME_POINT, np.nextafter(points[-1] + SAME_POINT, np.inf)])
        covered = slice(*ends)
        best[covered] = np.minimum(best[covered], sign * np.interp(grid[covered], points, values))
    frame = pd.DataFrame({"x": np.exp(grid), "y": best})
    frame = frame[frame["y"] < frame["y"].cummin().shift(fill_value=np.inf)]
    return frame.assign(y=sign * frame["y"])


def lines(cells: pd.DataFrame, x: str, y: str = "loss") -> Lines:
    """Each series against log ``x``: one point per budget, the mean over seeds; series in order of size.

    Cells that diverged have no value, and so no point.
    """
    points = (
        cells.dropna(subset=[x, y])
        .groupby(["series", "budget_unit", "budget_value"], sort=False)
        .agg(x=(x, "mean"), y=(y, "mean"), parameters=("parameters", "first"))
    )
    order = points.sort_values(["parameters", "series"]).index.get_level_values("series").unique()
    means = points.groupby(["series", "x"])["y"].mean()
    names, places = means.index.get_level_values("series"), means.index.get_level_values("x").to_numpy(float)
    starts = np.flatnonzero(names[1:] != names[:-1]) + 1
    parts = zip(np.split(np.log(places), starts), np.split(means.to_numpy(float), starts), strict=True)
    made = dict(zip(names.unique(), parts, strict=True))
    return {str(name): made[name] for name in order}


def leaders(cells: pd.DataFrame, x: str, tie: float | None = None) -> pd.DataFrame:
    """Who is best at equal ``x``: one row for every ``x`` at which a cell stands and two series can be compared.

    A series stands between its points with the loss that a straight line in log ``x`` gives, and nowhere outside them.

    Args:
        cells: the frame of train cells.
        x: the axis.
        tie: leads below this count as ties; None: below that of the task's loss, a rule of thumb and no test, since
            mean losses alone are looked at. Findings compare with intervals instead (``intervals``).

    Returns:
        ``x``, ``best`` and ``second`` (series), ``loss`` and ``second_loss``, ``margin`` (their difference), ``tie``
        (margin below ``tie``), ``compared`` (number of series).
    """
    series, tie = lines(cells, x), loss_of(cells).tie if tie is None else tie
    rows = []
    for point in grid_points(series):
        ranked = sorted((loss, name) for name, line in series.items() if (loss := _value_at(line, point)) is not None)
        if len(ranked) > 1:
            (loss, best), (second_loss, second) = ranked[:2]
            rows.append((float(np.exp(point)), best, loss, second, second_loss, second_loss - loss, len(ranked)))
    frame = pd.DataFrame(rows, columns=["x", "best", "loss", "second", "second_loss", "margin", "compared"])
    return frame.assign(tie=frame["margin"] < tie)


def crossings(cells: pd.DataFrame, x: str, tie: float | None = None) -> pd.DataFrame:
    """Where two series change places at equal ``x``, for every pair over the range that both cover.

    Losses are straight lines in log ``x`` between a series' points. The bracket is as wide as ties make it: from the
    last point at which ``before`` led by ``tie`` or more to the first at which ``after`` does.

    Returns:
        One row per change: ``before`` and ``after`` (series), ``x`` of the change, ``low`` and ``high`` (bracket),
        ``margin_low`` and ``margin_high`` (leads at its ends), ``sure`` (both reach ``tie``), and ``of_best``
        (whether the lead over all series changes here). By ``x``.
    """
    series, tie = lines(cells, x), loss_of(cells).tie if tie is None else tie
    rows = [row for pair in combinations(series, 2) for row in _changes(series, pair, tie)]
    columns = ["before", "after", "x", "low", "high", "margin_low", "margin_high", "sure", "of_best"]
    return pd.DataFrame(rows, columns=columns).sort_values(["x", "before"], ignore_index=True)


def _changes(series: Lines, pair: tuple[str, str], tie: float) -> list[tuple[object, ...]]:
    first, second = pair
    grid = grid_points({name: series[name] for name in pair})
    points = [point for point in grid if all(_value_at(series[name], point) is not None for name in pair)]
    gaps = np.array([_value(series[second], point) - _value(series[first], point) for point in points])
    rows: list[tuple[object, ...]] = []
    # A gap of exactly zero belongs to neither side, so signs are compared between points that have one.
    signed = [index for index in range(len(points)) if gaps[index] != 0]
    for left, right in pairwise(signed):
        if gaps[left] * gaps[right] < 0:
            before, after = (first, second) if gaps[left] > 0 else (second, first)
            change = points[left] + (points[right] - points[left]) * gaps[left] / (gaps[left] - gaps[right])
            # The nearest clear leads around the change, while the signs last; else the ends of the change itself.
            low, high = _clear(gaps, left, -1, tie), _clear(gaps, right, 1, tie)
            margins = abs(float(gaps[low])), abs(float(gaps[high]))
            level = _value(series[before], change)
            others = [_value_at(line, change) for name, line in series.items() if name not in pair]
            of_best = all(loss is None or loss >= level for loss in others)
            place = (float(np.exp(change)), float(np.exp(points[low])), float(np.exp(points[high])))
            rows.append((before, after, *place, *margins, min(margins) >= tie, of_best))
    return rows


def _clear(gaps: Floats, start: int, direction: int, tie: float) -> int:
    """The next index at which the lead is at least a tie; ``start`` where its sign changes before."""
    index = start
    while 0 <= index < len(gaps) and gaps[index] * gaps[start] > 0:
        if abs(gaps[index]) >= tie:
            return index
        index += direction
    return start


def grid_points(series: Lines) -> list[float]:
    """All points of the lines (log x), ascending, those that count as one replaced by their mean."""
    groups: list[list[float]] = []
    for point in sorted(float(point) for points, _ in series.values() for point in points):
        if groups and point - groups[-1][0] < SAME_POINT:
            groups[-1].append(point)
        else:
            groups.append([point])
    return [sum(group) / len(group) for group in groups]


def _value_at(line: Line, point: float) -> float | None:
    first, last = line[0][0] - SAME_POINT, line[0][-1] + SAME_POINT
    return _value(line, point) if first <= point <= last else None


def _value(line: Line, point: float) -> float:
    return float(np.interp(point, *line))
