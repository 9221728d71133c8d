"""What figures of scores have in common: the axis of a score, the loss of frequencies alone, a crowd of dots."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from trainlarge.results.report.style import CROWD, INK
from trainlarge.results.scores import axis_label, frequencies_of, loss_of, scores

NEAR = 0.35
"""The loss of frequencies alone is drawn if it is at most this share of the axis above it."""
RASTERED = 400
"""From this many points on they are one image within an SVG, which stays small."""


def crowd(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Points that are told apart by nothing but their place."""
    axes.scatter(x, y, s=7, color=CROWD, linewidth=0, zorder=0.5, rasterized=len(x) > RASTERED)


def frequency_line(axes: Axes, rows: pd.DataFrame, loss: float | None) -> str:
    """Draw the loss of frequencies alone where it is near the cells; the remark that says what or where it is."""
    if loss is None:
        return ""
    words, unit, (low, high) = f"{frequencies_of(rows)} alone", loss_of(rows).short_unit, axes.get_ylim()
    if loss > high + NEAR * (high - low):
        return f"{words}: {loss:.2f} {unit}, above the figure"
    axes.axhline(loss, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.set_ylim(min(low, loss - 0.05 * (high - low)), max(high, loss + 0.05 * (high - low)))
    return f"dotted: {words}, {loss:.2f} {unit}"


def score_axis(axes: Axes, rows: pd.DataFrame, y: str) -> None:
    """Label the y axis with a score and its unit; shares are written in per cent."""
    metric = scores(rows)[y]
    axes.set_ylabel(axis_label(metric))
    if metric.unit == "1":
        axes.yaxis.set_major_formatter(FuncFormatter(percent))


def percent(share: float, _: int) -> str:
    """A share with as many digits as it has: 7.25 is not written as 7, which may stand beside it."""
    return f"{100 * share:.6g} %"
