"""The figures of a study. Each function takes a frame and returns a matplotlib figure; ``style.save`` writes it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from trainlarge.errors import UserError
from trainlarge.results.analysis.frontier import envelope, frontier
from trainlarge.results.analysis.plateau import frequency_loss_of
from trainlarge.results.comparable import check_clocks, check_comparable, missed, on_axis
from trainlarge.results.frames import StudyFrames
from trainlarge.results.recipes import is_dense, keeps_shapes, same_task
from trainlarge.results.report.style import (
    FRONTIER,
    INK,
    QUIET,
    colours,
    figure_of,
    label_ends,
    line_styles,
    log_axis,
    note,
)
from trainlarge.results.scores import axis_label, direction, frequencies_of, loss_of, scores
from trainlarge.results.series import last_budget
from trainlarge.results.training_cost import at_last_budget, has_recovery
from trainlarge.results.units import scale_of

NEAR = 0.35
"""The loss of frequencies alone is drawn if it is at most this share of the axis above it."""


def training_figure(
    frames: StudyFrames, x: str = "model_seconds", y: str = "loss", allow_mixed: bool = False
) -> Figure:
    """Loss of every train cell against ``x``: one colour per shape, one line style per variant, the frontier behind.

    Thin lines are the curves of the longest run of a series; in a trunk with branches they lie above the cells,
    whose rate has decayed. Cells that shared their device on purpose have no place on an axis in seconds.

    Raises:
        UserError: for an axis in seconds over cells of several devices, or losses of several evaluation sets, unless
            ``allow_mixed``; for an axis in seconds where every cell shared its device.
    """
    cells, curves = _on_axis(frames.cells, x), frames.curves
    scale_of(x)
    if not allow_mixed:
        check_comparable(cells)
        check_clocks(cells, x)
    colour, style = colours(cells), line_styles(cells)
    with figure_of() as (figure, (axes,)):
        best = envelope(cells, x, y)
        axes.plot(best["x"], best["y"], color=FRONTIER, linewidth=11, zorder=1)
        for _, rows in cells.groupby(["series", "seed"], sort=False):
            rows, first = rows.sort_values(x), rows.iloc[0]
            shade, dashes = colour[first["shape"]], style[first["variant"]]
            curve = curves[curves["cell"] == rows["cell"].iloc[-1]]
            axes.plot(curve[x], curve[y], color=shade, linestyle=dashes, linewidth=0.9, alpha=0.45, zorder=2)
            (line,) = axes.plot(rows[x], rows[y], color=shade, linestyle=dashes, marker="o", linewidth=2, zorder=3)
            line.set(markersize=7.5, markeredgecolor="white")
        _zoom(axes, cells, x, y)
        log_axis(axes, x, cells[x])
        _score_axis(axes, cells, y)
        last = cells.sort_values(x).groupby("series", sort=False).tail(1).to_dict("records")
        label_ends(axes, [(row[x], row[y], row["series"], colour[row["shape"]]) for row in last])
        left_out = len(frames.cells) - len(cells)
        remarks = ["grey: frontier", "thin: curve of the longest run"]
        remarks += [f"left out: {left_out} whose seconds are no result"] if left_out else []
        note(axes, " · ".join([*remarks, *filter(None, [_frequency_line(axes, cells, y)])]))
    return figure


def size_figure(cells: pd.DataFrame, y: str = "loss", allow_mixed: bool = False) -> Figure:
    """A score against parameters: a line per budget that was not missed, darker for more training; means over seeds."""
    cells = cells[~missed(cells)]
    if not allow_mixed:
        check_comparable(cells)
    lines = _best_by_size(cells, y)
    shades = [colormaps["viridis_r"](place) for place in np.linspace(0.15, 0.95, len(lines))]
    with figure_of() as (figure, (axes,)):
        for line, shade in zip(lines.values(), shades, strict=True):
            axes.plot(line.index, line, "o-", color=shade, linewidth=2, markersize=7.5, markeredgecolor="white")
        axes.margins(x=0.06)
        log_axis(axes, "parameters", cells["parameters"])
        _score_axis(axes, cells, y)
        ends = zip(lines.items(), shades, strict=True)
        label_ends(axes, [(line.index[-1], line.iloc[-1], budget, shade) for (budget, line), shade in ends])
        _name_shapes(axes, cells)
        if remark := _frequency_line(axes, cells, y):
            # Above the names of the shapes.
            note(axes, remark, pad=20)
    return figure


def _best_by_size(cells: pd.DataFrame, y: str) -> dict[str, pd.Series]:
    """Budget, the smallest first -> best score of each number of parameters, a mean over seeds."""
    best = "max" if direction(cells, y) < 0 else "min"
    lines = {}
    for _, rows in cells.groupby(["budget_unit", "budget_value"]):
        means = rows.groupby("series").agg(parameters=("parameters", "first"), score=(y, "mean"))
        lines[str(rows["budget"].iloc[0])] = means.groupby("parameters")["score"].agg(best)
    return lines


def bytes_figure(compression: pd.DataFrame, size: str = "file_bytes", allow_mixed: bool = False) -> Figure:
    """Loss against the size of every checkpoint under every recipe: dots by shape, squares dense, a black frontier.

    Those with the training of the last common budget stand out, recovery included; results worse than every dense model
    are above the figure.
    """
    if not allow_mixed:
        check_comparable(compression)
    rows = _known(compression)
    lowest = float(rows["loss"].min())
    # A little above the worst dense model.
    top = lowest + 1.12 * max(float(rows["dense_loss"].max()) - lowest, 0.5)
    colour, equal, hidden = colours(rows), at_last_budget(rows).index, int((rows["loss"] > top).sum())
    with figure_of(width=7.4, height=4.7) as (figure, (axes,)):
        for shape, points in _by_shape(rows):
            _dots(axes, points[~points.index.isin(equal)], size, colour[shape], alpha=0.25)
            _dots(axes, points[points.index.isin(equal)], size, colour[shape], alpha=0.95, label=shape)
        best = frontier(rows, size)
        axes.plot(best[size], best["loss"], color=INK, linewidth=1.1, drawstyle="steps-post", zorder=2)
        axes.scatter(best[size], best["loss"], s=62, facecolor="none", edgecolor=INK, linewidth=1.1, zorder=4)
        axes.set_ylim(lowest - 0.06 * (top - lowest), top)
        log_axis(axes, size, rows[size])
        _score_axis(axes, rows, "loss")
        legend = axes.legend(loc="upper right", title="shape", handletextpad=0.2, frameon=True, framealpha=0.9)
        legend.get_frame().set(facecolor="white", edgecolor="none")
        recovery = ", recovery included" if has_recovery(rows).any() else ""
        remark = f" · {hidden} worse results above" if hidden else ""
        budget = last_budget(rows)["budget"].iloc[0]
        note(axes, f"strong: after {budget}{recovery} · squares: dense · black: frontier{remark}")
    return figure


def increase_figure(compression: pd.DataFrame) -> Figure:
    """Loss increase of every shape against bits (nothing pruned) and against sparsity (nothing quantized).

    After the last common budget; the best of the recipes that share a number. Bars are standard errors over documents
    of the evaluation set, in records of before over its rows.
    """
    known = _known(compression)
    rows = last_budget(known[keeps_shapes(known)])
    colour = colours(rows)
    with figure_of(columns=2, width=9.2, height=4.2) as (figure, (left, right)):
        for shape, points in _by_shape(rows):
            _increase(left, points[points["sparsity"] == 0], "bits", colour[shape], shape)
            _increase(right, points[points["bits"] == 32], "sparsity", colour[shape], shape)
        _bits_axis(left, rows["bits"])
        right.set_xlabel("share of weights pruned, nothing quantized")
        right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _increase_axis(left, rows)
        left.legend(loc="upper left", title="shape")
        note(right, f"after {rows['budget'].iloc[0]} of training")
    return figure


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


def _zoom(axes: Axes, cells: pd.DataFrame, x: str, y: str) -> None:
    """Show the cells, with room around them; curves begin far outside."""
    low, high = cells[x].min(), cells[x].max()
    margin = (high / low) ** 0.06 if high > low else 1.2
    axes.set_xlim(low / margin, high * margin)
    room = 0.08 * (cells[y].max() - cells[y].min() or 1.0)
    axes.set_ylim(cells[y].min() - room, cells[y].max() + 2 * room)


def _frequency_line(axes: Axes, cells: pd.DataFrame, y: str) -> str:
    """Draw the loss of frequencies alone where it is near the cells; the remark that says what or where it is."""
    loss = frequency_loss_of(cells)
    if y != "loss" or loss is None:
        return ""
    words, unit, (low, high) = f"{frequencies_of(cells)} alone", loss_of(cells).short_unit, axes.get_ylim()
    if loss > high + NEAR * (high - low):
        return f"{words}: {loss:.2f} {unit}, above the figure"
    axes.axhline(loss, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.set_ylim(min(low, loss - 0.05 * (high - low)), max(high, loss + 0.05 * (high - low)))
    return f"dotted: {words}, {loss:.2f} {unit}"


def _score_axis(axes: Axes, rows: pd.DataFrame, y: str) -> None:
    metric = scores(rows)[y]
    axes.set_ylabel(axis_label(metric))
    if metric.unit == "1":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _name_shapes(axes: Axes, cells: pd.DataFrame) -> None:
    """Shape names along the upper edge, where its parameters lie."""
    sizes = cells.groupby("shape")["parameters"].min()
    for shape, parameters in sizes.items():
        axes.axvline(parameters, color=QUIET, linewidth=0.6, linestyle=(0, (2, 3)), zorder=0)
        axes.text(
            parameters,
            1.01,
            str(shape),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=QUIET,
        )


def _dots(axes: Axes, rows: pd.DataFrame, size: str, colour: str, alpha: float, label: str | None = None) -> None:
    dense = is_dense(rows)
    axes.scatter(
        rows[size][~dense], rows["loss"][~dense], s=22, color=colour, alpha=alpha, linewidth=0, label=label, zorder=3
    )
    axes.scatter(
        rows[size][dense], rows["loss"][dense], s=34, marker="s", color=colour, alpha=alpha, linewidth=0, zorder=3
    )


def _increase(axes: Axes, rows: pd.DataFrame, column: str, colour: str, label: str) -> None:
    errors = rows["increase_document_standard_error"].fillna(rows["increase_standard_error"])
    points = (
        rows.assign(error=errors)
        .sort_values("loss_increase")
        .groupby(column)
        .agg(y=("loss_increase", "first"), error=("error", "first"))
        .reset_index()
    )
    axes.errorbar(
        points[column], points["y"], yerr=points["error"], fmt="none", ecolor=colour, elinewidth=1, capsize=2, alpha=0.6
    )
    axes.plot(
        points[column], points["y"], "o-", color=colour, linewidth=2, markersize=7, markeredgecolor="white", label=label
    )


def _bits_axis(axes: Axes, bits: pd.Series) -> None:
    axes.set_xlabel("bits of a weight, nothing pruned")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(map(float, bits.unique()))))
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
