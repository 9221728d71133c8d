"""Loss along an axis, one line per series and seed, so that a value between two budgets has its noise too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainlarge.results.analysis.frontier import SAME_POINT, grid_points, lines
from trainlarge.results.analysis.intervals import Comparison, Difference, SeedMean, difference
from trainlarge.results.document_losses import Sample, Weights
from trainlarge.results.series import by_size


@dataclass(frozen=True)
class _Line:
    x: NDArray[np.float64]
    """log x of the cells of one seed, ascending."""
    losses: NDArray[np.float64]
    cells: tuple[str, ...]

    def covers(self, point: float) -> bool:
        return bool(self.x[0] - SAME_POINT <= point <= self.x[-1] + SAME_POINT)


def _lines_of_seeds(cells: pd.DataFrame, x: str) -> dict[str, list[_Line]]:
    """Series -> the line of each of its seeds: through one cell per value of ``x``."""
    keys = ["series", "seed"]
    rows = cells.sort_values([*keys, x, "cell"]).drop_duplicates([*keys, x])
    starts = np.flatnonzero(~rows.duplicated(keys).to_numpy())
    columns = (np.log(rows[x].to_numpy(float)), rows["loss"].to_numpy(float), rows["cell"].to_numpy())
    made: dict[str, list[_Line]] = {}
    for name, start, end in zip(rows["series"].iloc[starts], starts, [*starts[1:], len(rows)], strict=True):
        points, losses, names = (column[start:end] for column in columns)
        made.setdefault(str(name), []).append(_Line(points, losses, tuple(names)))
    return made


class SeedLines:
    """The lines of all series along one axis."""

    def __init__(self, cells: pd.DataFrame, x: str, sample: Sample) -> None:
        self.x, self.sample = x, sample
        self.order = by_size(cells)
        self.points = grid_points(lines(cells, x))
        self._lines = _lines_of_seeds(cells, x)
        self._estimates: dict[tuple[str, float], SeedMean | None] = {}

    def at(self, name: str, point: float) -> SeedMean | None:
        """Loss of a series at ``point`` (log x): straight lines between cells; None where no seed reaches it."""
        key = name, point
        if key not in self._estimates:
            self._estimates[key] = self._estimate([line for line in self._lines[name] if line.covers(point)], point)
        return self._estimates[key]

    def common(self, names: tuple[str, ...]) -> list[float]:
        """Points at which all of ``names`` have a loss."""
        return [point for point in self.points if all(self.at(name, point) is not None for name in names)]

    def compared(self, point: float) -> tuple[str, ...]:
        """Series that have a loss at ``point``, in order of size."""
        return tuple(name for name in self.order if self.at(name, point) is not None)

    def difference(self, left: str, right: str, point: float) -> Difference:
        """``left - right`` at ``point``, where both must have a loss."""
        sides = self.at(left, point), self.at(right, point)
        if sides[0] is None or sides[1] is None:
            raise ValueError(f"{left} and {right} are not both known at {point}")
        return difference(sides[0], sides[1], self.sample)

    def _estimate(self, reaching: list[_Line], point: float) -> SeedMean | None:
        if not reaching:
            return None
        losses = tuple(float(np.interp(point, line.x, line.losses)) for line in reaching)
        shares = [
            (cell, weight / len(reaching)) for line in reaching for cell, weight in around(point, line.x, line.cells)
        ]
        draws = self.sample.draws("loss", [shares])
        return SeedMean(losses, None if draws is None else draws[0])


def around(point: float, ascending: Sequence[float] | NDArray[np.float64], cells: Sequence[str]) -> Weights:
    """The one or two cells on both sides of ``point`` whose weighted mean is there, and their weights.

    Args:
        point: where.
        ascending: where each of the cells is.
        cells: their ids.
    """
    place = float(np.interp(point, ascending, np.arange(len(cells))))
    left = min(int(place), len(cells) - 1)
    share = place - left
    return [(cells[left], 1 - share), *([(cells[left + 1], share)] if share else [])]


def spans(lines_of: SeedLines) -> list[tuple[tuple[str, ...], list[float]]]:
    """Where the most series can be compared: their names and the points, for each run of points of equal names."""
    stretches: list[tuple[tuple[str, ...], list[float]]] = []
    for point in lines_of.points:
        names = lines_of.compared(point)
        if stretches and stretches[-1][0] == names:
            stretches[-1][1].append(point)
        else:
            stretches.append((names, [point]))
    most = max((len(names) for names, _ in stretches), default=0)
    return [(names, points) for names, points in stretches if len(names) == most > 1]


def pair_comparisons(lines_of: SeedLines) -> dict[Comparison, Difference]:
    """Every pair of series at the first and the last point that both have, and at the end of each of ``spans``.

    Returns:
        (axis, series, series, point of the axis) -> difference, the series in order of size.
    """
    wanted = {
        (*pair, point)
        for pair in combinations(lines_of.order, 2)
        if (points := lines_of.common(pair))
        for point in (points[0], points[-1])
    }
    wanted |= {(*pair, points[-1]) for names, points in spans(lines_of) for pair in combinations(names, 2)}
    return {(lines_of.x, *place): lines_of.difference(*place) for place in sorted(wanted)}
