"""The figures of a study. Each function takes a frame and returns a matplotlib figure; ``style.save`` writes it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from trainlarge.errors import UserError
from trainlarge.results.analysis.contenders import MOST_SERIES, compressed_contenders, contenders
from trainlarge.results.analysis.frontier import envelope, frontier
from trainlarge.results.analysis.frontier import lines as lines_of
from trainlarge.results.analysis.plateau import frequency_loss_of
from trainlarge.results.comparable import check_clocks, check_comparable, missed, on_axis
from trainlarge.results.frames import StudyFrames
from trainlarge.results.recipes import is_dense, keeps_shapes, same_task
from trainlarge.results.report.style import (
    BUDGETS,
    CROWD,
    FRONTIER,
    INK,
    MARKERS,
    QUIET,
    Look,
    Marks,
    Named,
    figure_of,
    fitting_ticks,
    legend_below,
    log_axis,
    marked,
    name_lines,
    note,
    shades,
)
from trainlarge.results.scores import axis_label, direction, frequencies_of, loss_of, scores
from trainlarge.results.series import last_budget
from trainlarge.results.training_cost import at_last_budget, has_recovery
from trainlarge.results.units import scale_of

NEAR = 0.35
"""The loss of frequencies alone is drawn if it is at most this share of the axis above it."""
MOST_LINES = 40
"""Runs, of one series and seed each, that are drawn as lines of their own."""
MOST_BUDGETS = 8
"""Budgets that have a line in a figure against size."""
RASTERED = 400
"""From this many points on they are one image within an SVG, which stays small."""


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
        _score_axis(axes, cells, y)
        left_out = len(frames.cells) - len(cells)
        missing = f"left out: {left_out} whose seconds are no result" if left_out else ""
        frequency = _frequency_line(axes, cells, frequency_loss_of(cells) if y == "loss" else None)
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
    _crowd(axes, cells[x], cells[y])
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
        _score_axis(axes, cells, y)
        some = f"{len(shown)} of {len(lines):,} budgets" if len(shown) < len(lines) else ""
        _name_shapes(axes, cells)
        # Above the names of the shapes.
        note(axes, [some, _frequency_line(axes, cells, frequency_loss_of(cells) if y == "loss" else None)], pad=34)
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


def bytes_figure(
    compression: pd.DataFrame,
    size: str = "file_bytes",
    allow_mixed: bool = False,
    frequency_loss: float | None = None,
    y: str = "loss",
) -> Figure:
    """A score against the size of every checkpoint under every recipe, and the frontier: a colour and marker per shape.

    Filled are those with the training of the last common budget, recovery included; a dark edge marks dense ones.
    Results worse than every dense model are above the figure. Of many shapes the best are named, the rest is grey.

    Args:
        compression: compress cells.
        size: the column that is their size.
        allow_mixed: draw losses of several evaluation sets together.
        frequency_loss: loss of predicting by frequencies alone, where it is to be drawn.
        y: the score.

    Raises:
        UserError: where there are none, or losses of several evaluation sets.
    """
    rows = _known(compression).dropna(subset=[y])
    if not allow_mixed:
        check_comparable(rows)
    best_end, worst_end = _score_range(rows, y)
    named = _named_shapes(rows)
    hidden = int((direction(rows, y) * (rows[y] - worst_end) > 0).sum())
    with figure_of(height=4.4) as (figure, (axes,)):
        others = rows[~rows["shape"].isin(named["shape"])]
        _crowd(axes, others[size], others[y])
        handles = _models(axes, named, (size, y), set(at_last_budget(rows)["cell"]))
        best = frontier(rows, size, y)
        axes.plot(best[size], best[y], color=INK, linewidth=1.1, drawstyle="steps-post", zorder=2)
        axes.set_ylim(min(best_end, worst_end), max(best_end, worst_end))
        log_axis(axes, size, rows[size])
        _score_axis(axes, rows, y)
        outside = "above" if worst_end > best_end else "below"
        above = f"{hidden:,} worse results {outside}" if hidden else ""
        note(axes, [*_how_to_read(rows, others), above, _frequency_line(axes, rows, frequency_loss)])
        legend_below(axes, list(handles.values()), list(handles), "shape")
    return figure


def _score_range(rows: pd.DataFrame, y: str) -> tuple[float, float]:
    """Ends of the axis of a score: a little better than the best model, a little worse than the worst dense one."""
    sign = direction(rows, y)
    values = sign * rows[y]
    dense = rows["dense_loss"] if y == "loss" else values[is_dense(rows)]
    lowest, room = float(values.min()), 0.5 if y == "loss" else 0.05
    span = 1.12 * max(float(dense.max()) - lowest if len(dense) else 0.0, room)
    return sign * (lowest - 0.06 * span), sign * (lowest + span)


def _how_to_read(rows: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """Remarks on the dots of a figure of compressed models; ``others`` are those without a colour."""
    recovery = ", recovery included" if has_recovery(rows).any() else ""
    grey = f"grey: {others['shape'].nunique():,} other shapes" if len(others) else ""
    return [
        f"filled: after {last_budget(rows)['budget'].iloc[0]}{recovery}",
        "dark edge: dense",
        "line: frontier",
        grey,
    ]


def _named_shapes(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of shapes that have a colour: all where these are few, else those of the best series."""
    if rows["shape"].nunique() <= MOST_SERIES:
        return rows
    best = rows.loc[rows["series"].isin(compressed_contenders(rows)), "shape"]
    return rows[rows["shape"].isin(best)]


def _models(axes: Axes, rows: pd.DataFrame, place: tuple[str, str], equal: set[str]) -> dict[str, Artist]:
    """The dots of every shape, at two columns; shape -> what stands in a legend."""
    size, y = place
    look, handles = Look.of(rows), dict[str, Artist]()
    for shape, points in _by_shape(rows):
        colour, marker = look.colour[shape], look.marker[shape]
        is_equal, dense = points["cell"].isin(equal), is_dense(points)
        for which, face in ((~is_equal, "none"), (is_equal, colour)):
            for kind, edge, area in ((~dense, colour, 20), (dense, INK, 42)):
                chosen = points[which & kind]
                axes.scatter(
                    chosen[size], chosen[y], s=area, marker=marker, facecolor=face, edgecolor=edge, linewidth=1,
                    zorder=3, rasterized=len(rows) > RASTERED,
                )  # fmt: skip
        handles[shape] = Line2D([], [], linestyle="", marker=marker, color=colour)
    return {shape: handles[shape] for shape in look.colour}


def increase_figure(compression: pd.DataFrame) -> Figure:
    """Loss increase of every shape against bits (nothing pruned) and against sparsity (nothing quantized).

    After the last common budget; the best of the recipes that share a number. Bars are standard errors over documents
    of the evaluation set, in records of before over its rows. Of many shapes the best are drawn.
    """
    known = _known(compression)
    whole = last_budget(known[keeps_shapes(known)])
    rows = _named_shapes(whole)
    look = Look.of(rows)
    with figure_of(panels=2, height=3.1) as (figure, (upper, lower)):
        lines = {}
        for shape, points in _by_shape(rows):
            style = look.marked(shape)
            lines[shape] = _increase(upper, points[points["sparsity"] == 0], "bits", style)
            _increase(lower, points[points["bits"] == 32], "sparsity", style)
        _bits_axis(upper, rows["bits"])
        lower.set_xlabel("share of weights pruned, nothing quantized")
        lower.xaxis.set_major_formatter(FuncFormatter(_percent))
        for axes in (upper, lower):
            _increase_axis(axes, rows)
        counts = rows["shape"].nunique(), whole["shape"].nunique()
        some = f"the {counts[0]} best of {counts[1]:,} shapes" if counts[0] < counts[1] else ""
        note(upper, [f"after {rows['budget'].iloc[0]} of training", some])
        legend_below(upper, [lines[shape] for shape in look.colour], list(look.colour), "shape")
    return figure


def _crowd(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Points that are told apart by nothing but their place."""
    axes.scatter(x, y, s=7, color=CROWD, linewidth=0, zorder=0.5, rasterized=len(x) > RASTERED)


def _on_axis(cells: pd.DataFrame, x: str) -> pd.DataFrame:
    left = on_axis(cells, x)
    if left.empty:
        why = "all cells shared their device (launcher.per_device), or changed it (mixed)"
        raise UserError("x", x, f"an axis that is not in seconds: {why}")
    return left


def _known(compression: pd.DataFrame) -> pd.DataFrame:
    """Compress cells whose train cell is known and whose losses can be compared."""
    rows = same_task(compression).dropna(subset=["shape"])
    if rows.empty:
        raise UserError("compression", "no cells", "at least one finished compress cell")
    return rows


def _by_shape(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(shape), points) for shape, points in rows.groupby("shape", sort=False)]


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


def _frequency_line(axes: Axes, rows: pd.DataFrame, loss: float | None) -> str:
    """Draw the loss of frequencies alone where it is near the cells; the remark that says what or where it is."""
    if loss is None:
        return ""
    words, unit, (low, high) = f"{frequencies_of(rows)} alone", loss_of(rows).short_unit, axes.get_ylim()
    if loss > high + NEAR * (high - low):
        return f"{words}: {loss:.2f} {unit}, above the figure"
    axes.axhline(loss, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.set_ylim(min(low, loss - 0.05 * (high - low)), max(high, loss + 0.05 * (high - low)))
    return f"dotted: {words}, {loss:.2f} {unit}"


def _score_axis(axes: Axes, rows: pd.DataFrame, y: str) -> None:
    metric = scores(rows)[y]
    axes.set_ylabel(axis_label(metric))
    if metric.unit == "1":
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))


def _percent(share: float, _: int) -> str:
    """A share with as many digits as it has: 7.25 is not written as 7, which may stand beside it."""
    return f"{100 * share:.6g} %"


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


def _increase(axes: Axes, rows: pd.DataFrame, column: str, style: Marks) -> Line2D:
    """The best increase at each value of a column, with its standard error."""
    errors = rows["increase_document_standard_error"].fillna(rows["increase_standard_error"])
    points = (
        rows.assign(error=errors)
        .sort_values("loss_increase")
        .groupby(column)
        .agg(y=("loss_increase", "first"), error=("error", "first"))
        .reset_index()
    )
    places = points[column], points["y"]
    axes.errorbar(*places, yerr=points["error"], fmt="none", ecolor=style["color"], elinewidth=1, capsize=2)
    return axes.plot(*places, linestyle="-", linewidth=2, **style)[0]


def _bits_axis(axes: Axes, bits: pd.Series) -> None:
    axes.set_xlabel("bits of a weight, nothing pruned")
    axes.set_xscale("log", base=2)
    ticks = fitting_ticks(sorted(map(float, bits.unique())), "{:g}".format, *axes.get_xlim())
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.invert_xaxis()


def _increase_axis(axes: Axes, rows: pd.DataFrame) -> None:
    axes.set_ylabel(f"loss increase ({loss_of(rows).unit})")
    axes.set_yscale("symlog", linthresh=0.01, linscale=0.4)
    axes.set_ylim(bottom=min(rows["loss_increase"].min(), 0.0) - 0.005)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
