"""Figures of compressed models: a score against size, and what compression costs. Means over seeds."""

from __future__ import annotations

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from trainlarge.errors import UserError
from trainlarge.results.analysis.contenders import MOST_SERIES, compressed_contenders
from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.analysis.models import increase_means, seed_means
from trainlarge.results.comparable import check_comparable
from trainlarge.results.recipes import is_dense, keeps_shapes, same_task
from trainlarge.results.report.score_axes import RASTERED, crowd, frequency_line, percent, score_axis
from trainlarge.results.report.style import (
    INK,
    Look,
    Marks,
    figure_of,
    fitting_ticks,
    legend_below,
    log_axis,
    note,
    pale,
)
from trainlarge.results.scores import direction, loss_of
from trainlarge.results.series import last_budget
from trainlarge.results.training_cost import at_last_budget, has_recovery


def bytes_figure(
    compression: pd.DataFrame,
    size: str = "file_bytes",
    allow_mixed: bool = False,
    frequency_loss: float | None = None,
    y: str = "loss",
) -> Figure:
    """A score against the size of every checkpoint under every recipe, and the frontier: a colour and marker per shape.

    Means over seeds with standard errors, and behind them each seed, small and pale. Filled are those with the training
    of the last common budget, recovery included; a dark edge marks dense ones. Results worse than every dense model are
    above the figure. Of many shapes the best are named, the rest is grey.

    Args:
        compression: compress cells.
        size: the column that is their size.
        allow_mixed: draw losses of several evaluation sets together.
        frequency_loss: loss of predicting by frequencies alone, where it is to be drawn.
        y: the score.

    Raises:
        UserError: where there are none, or losses of several evaluation sets.
    """
    every = _known(compression).dropna(subset=[y])
    if not allow_mixed:
        check_comparable(every)
    rows = seed_means(every, list(dict.fromkeys((size, y, "loss", "dense_loss", "file_bytes"))), y)
    best_end, worst_end = _score_range(rows, y)
    named = _named_shapes(rows)
    hidden = int((direction(rows, y) * (rows[y] - worst_end) > 0).sum())
    with figure_of(height=4.4) as (figure, (axes,)):
        others = rows[~rows["shape"].isin(named["shape"])]
        crowd(axes, others[size], others[y])
        _seeds(axes, every, named, (size, y))
        handles = _models(axes, named, (size, y), set(at_last_budget(rows)["cell"]))
        best = frontier(rows, size, y)
        axes.plot(best[size], best[y], color=INK, linewidth=1.1, drawstyle="steps-post", zorder=2)
        axes.set_ylim(min(best_end, worst_end), max(best_end, worst_end))
        log_axis(axes, size, rows[size])
        score_axis(axes, rows, y)
        outside = "above" if worst_end > best_end else "below"
        above = f"{hidden:,} worse results {outside}" if hidden else ""
        remarks = [*_how_to_read(rows, others), _about_seeds(named), above]
        note(axes, [*remarks, frequency_line(axes, rows, frequency_loss)])
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


def _about_seeds(means: pd.DataFrame) -> str:
    """A remark on what repeats a model; empty where none is repeated."""
    least, most = means["runs"].min(), means["runs"].max()
    if most < 2:
        return ""
    seeds = f"{most}" if least == most else f"{least} to {most}"
    return f"means of {seeds} seeds ± standard error · pale: seeds"


def _seeds(axes: Axes, rows: pd.DataFrame, means: pd.DataFrame, place: tuple[str, str]) -> None:
    """Behind the means of repeated models: their standard errors, and every cell as a small pale mark."""
    size, y = place
    repeated = means[means["runs"] > 1]
    look = Look.of(means)
    for shape, points in _by_shape(repeated):
        colour = pale(look.colour[shape])
        cells = rows[rows["shape"].eq(shape)]
        axes.scatter(
            cells[size], cells[y], s=7, marker=look.marker[shape], color=colour, linewidth=0, zorder=1.5,
            rasterized=len(rows) > RASTERED,
        )  # fmt: skip
        axes.errorbar(
            points[size], points[y], points["run_error"], fmt="none", ecolor=colour, elinewidth=1, capsize=2, zorder=1.6
        )


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

    Means over seeds after the last common budget; the best of the recipes that share a number. Bars are standard errors
    over documents of the evaluation set, in records of before over its rows. Of many shapes the best are drawn.
    """
    known = _known(compression)
    whole = increase_means(last_budget(known[keeps_shapes(known)]))
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
        lower.xaxis.set_major_formatter(FuncFormatter(percent))
        for axes in (upper, lower):
            _increase_axis(axes, rows)
        counts = rows["shape"].nunique(), whole["shape"].nunique()
        some = f"the {counts[0]} best of {counts[1]:,} shapes" if counts[0] < counts[1] else ""
        note(upper, [f"after {rows['budget'].iloc[0]} of training", some])
        legend_below(upper, [lines[shape] for shape in look.colour], list(look.colour), "shape")
    return figure


def _known(compression: pd.DataFrame) -> pd.DataFrame:
    """Compress cells whose train cell is known and whose losses can be compared."""
    rows = same_task(compression).dropna(subset=["shape"])
    if rows.empty:
        raise UserError("compression", "no cells", "at least one finished compress cell")
    return rows


def _by_shape(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(str(shape), points) for shape, points in rows.groupby("shape", sort=False)]


def _increase(axes: Axes, rows: pd.DataFrame, column: str, style: Marks) -> Line2D:
    """The best increase at each value of a column, with its standard error."""
    points = (
        rows.sort_values("loss_increase")
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
