"""The figures of a study. Each function takes a frame and returns a matplotlib figure; ``style.save`` writes it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from trainlarge.errors import UserError
from trainlarge.results.analysis.contenders import MOST_SERIES, contenders
from trainlarge.results.analysis.frontier import envelope
from trainlarge.results.analysis.frontier import lines as lines_of
from trainlarge.results.analysis.plateau import frequency_loss_of
from trainlarge.results.comparable import check_clocks, check_comparable, missed, on_axis
from trainlarge.results.frames import StudyFrames
from trainlarge.results.report.score_axes import crowd, frequency_line, score_axis
from trainlarge.results.report.style import (
    BUDGETS,
    FRONTIER,
    MARKERS,
    QUIET,
    Look,
    Named,
    figure_of,
    fitting_ticks,
    log_axis,
    marked,
    name_lines,
    note,
    shades,
)
from trainlarge.results.scores import direction
from trainlarge.results.units import scale_of

MOST_LINES = 40
"""Runs, of one series and seed each, that are drawn as lines of their own."""
MOST_BUDGETS = 8
"""Budgets that have a line in a figure against size."""


def training_figure(
    frames: StudyFrames, x: str = "model_seconds", y: str = "loss", allow_mixed: bool = False
) -> Figure:
    """Loss of every train cell against ``x``: a colour and marker per shape, a line style per variant, the frontier.

    Thin lines are the curves of the longest run of a series; in a trunk with branches they lie above the cells,
    whose rate has decayed. Cells that shared their device on purpose have no place on an axis in seconds. Of more runs
    than can be told apart, every cell is a grey dot, and the best series alone are lines, means over their seeds.

    Raises:
        UserError: for an axis in seconds over cells of several devices, or losses of several evaluation sets, unless
            ``allow_mixed``; for an axis in seconds where every cell shared its device.
    """
    cells = _on_axis(frames.cells, x)
    scale_of(x)
    if not allow_mixed:
        check_comparable(cells)
        check_clocks(cells, x)
    is_crowded = cells["series"].nunique() > MOST_SERIES or cells.groupby(["series", "seed"]).ngroups > MOST_LINES
    with figure_of() as (figure, (axes,)):
        best = envelope(cells, x, y)
        axes.plot(best["x"], best["y"], color=FRONTIER, linewidth=6, zorder=1)
        if is_crowded:
            lines, drawn = _best_lines(axes, cells, x, y)
        else:
            lines, drawn = _all_runs(axes, cells, frames.curves, x, y)
        hidden = _zoom(axes, cells, [line.line for line in lines] if is_crowded else [], x, y)
        log_axis(axes, x, cells[x])
        score_axis(axes, cells, y)
        left_out = len(frames.cells) - len(cells)
        missing = f"left out: {left_out} whose seconds are no result" if left_out else ""
        frequency = frequency_line(axes, cells, frequency_loss_of(cells) if y == "loss" else None)
        note(axes, ["grey line: frontier", drawn, missing, hidden, frequency])
        name_lines(axes, lines)
    return figure


def _all_runs(axes: Axes, cells: pd.DataFrame, curves: pd.DataFrame, x: str, y: str) -> tuple[list[Named], str]:
    """A line per series and seed, with the curve of the longest run; what a remark says of them."""
    look, lines = Look.of(cells), dict[str, Named]()
    for _, rows in cells.groupby(["series", "seed"], sort=False):
        rows = rows.sort_values(x)
        shape, series, variant = (str(rows[name].iloc[0]) for name in ("shape", "series", "variant"))
        curve, dashes = curves[curves["cell"] == rows["cell"].iloc[-1]], look.dashes[variant]
        axes.plot(curve[x], curve[y], color=look.colour[shape], linestyle=dashes, linewidth=0.8, zorder=2)
        (line,) = axes.plot(rows[x], rows[y], linestyle=dashes, linewidth=2, zorder=3, **look.marked(shape))
        lines[series] = Named(series, line)
    return list(lines.values()), "" if curves.empty else "thin: curve of the longest run"


def _best_lines(axes: Axes, cells: pd.DataFrame, x: str, y: str) -> tuple[list[Named], str]:
    """Every cell as a dot, the best series as lines; what a remark says of them."""
    crowd(axes, cells[x], cells[y])
    chosen = cells[cells["series"].isin(contenders(cells))]
    look, found, named = Look.of(chosen), lines_of(chosen, x, y), []
    described = chosen.drop_duplicates("series").set_index("series")
    for series, (points, values) in found.items():
        shape, variant = (str(described.loc[series, name]) for name in ("shape", "variant"))
        drawn = axes.plot(
            np.exp(points), values, linestyle=look.dashes[variant], linewidth=2, zorder=3, **look.marked(shape)
        )
        named.append(Named(series, drawn[0]))
    which = f"the {len(named)} best of {cells['series'].nunique():,}" if len(named) == MOST_SERIES else "all"
    return named, f"dots: all {len(cells):,} cells · lines: {which} series, means over seeds"


def size_figure(cells: pd.DataFrame, y: str = "loss", allow_mixed: bool = False) -> Figure:
    """A score against parameters: a line per budget that was not missed, darker for more training; means over seeds.

    Of many budgets some are drawn, the smallest and the largest among them.
    """
    cells = cells[~missed(cells)]
    if not allow_mixed:
        check_comparable(cells)
    lines = _best_by_size(cells, y)
    places = np.unique(np.linspace(0, len(lines) - 1, MOST_BUDGETS).round().astype(int))
    shown = [list(lines.items())[place] for place in places]
    shade = shades(BUDGETS, len(shown))
    with figure_of() as (figure, (axes,)):
        named = []
        for place, (budget, line) in enumerate(shown):
            style = marked(shade[place], MARKERS[place])
            every = math.ceil(len(line) / MOST_LINES)
            (drawn,) = axes.plot(line.index, line, "-", linewidth=2, markevery=every, **style)
            named.append(Named(budget, drawn))
        axes.margins(x=0.06)
        log_axis(axes, "parameters", cells["parameters"])
        score_axis(axes, cells, y)
        some = f"{len(shown)} of {len(lines):,} budgets" if len(shown) < len(lines) else ""
        _name_shapes(axes, cells)
        # Above the names of the shapes.
        note(axes, [some, frequency_line(axes, cells, frequency_loss_of(cells) if y == "loss" else None)], pad=34)
        name_lines(axes, named)
    return figure


def _best_by_size(cells: pd.DataFrame, y: str) -> dict[str, pd.Series]:
    """Budget, the smallest first -> best score of each number of parameters, a mean over seeds."""
    best = "max" if direction(cells, y) < 0 else "min"
    lines = {}
    for _, rows in cells.groupby(["budget_unit", "budget_value"]):
        means = rows.groupby("series").agg(parameters=("parameters", "first"), score=(y, "mean"))
        lines[str(rows["budget"].iloc[0])] = means.groupby("parameters")["score"].agg(best)
    return lines


def _on_axis(cells: pd.DataFrame, x: str) -> pd.DataFrame:
    left = on_axis(cells, x)
    if left.empty:
        why = "all cells shared their device (launcher.per_device), or changed it (mixed)"
        raise UserError("x", x, f"an axis that is not in seconds: {why}")
    return left


def _zoom(axes: Axes, cells: pd.DataFrame, lines: list[Line2D], x: str, y: str) -> str:
    """Show the cells with room around them, or of a crowd the lines; a remark on what is outside."""
    low, high = cells[x].min(), cells[x].max()
    margin = (high / low) ** 0.06 if high > low else 1.2
    axes.set_xlim(low / margin, high * margin)
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in lines]) if lines else cells[y].to_numpy()
    room = 0.08 * (values.max() - values.min() or 1.0)
    bottom, top = values.min() - room, values.max() + 2 * room
    axes.set_ylim(bottom, top)
    outside = int((~cells[y].between(bottom, top)).sum())
    return f"{outside:,} worse cells outside" if outside else ""


def _name_shapes(axes: Axes, cells: pd.DataFrame) -> None:
    """Name shapes above their numbers of parameters, in two rows, as far as there is room."""
    sizes = cells.groupby("shape")["parameters"].min()
    names = {float(parameters): str(shape) for shape, parameters in sizes.items()}
    left, place = sorted(names), axes.get_xaxis_transform()
    for height in (1.01, 1.075):
        for parameters in fitting_ticks(left, names.__getitem__, *axes.get_xlim()):
            axes.axvline(parameters, color=QUIET, linewidth=0.6, linestyle=(0, (2, 3)), zorder=0)
            axes.text(parameters, height, names[parameters], transform=place, ha="center", va="bottom", color=QUIET)
            left.remove(parameters)
