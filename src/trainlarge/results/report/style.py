"""How figures look: colours by size, line styles by variant, axes with units."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from trainlarge.results.analysis.frontier import SAME_POINT
from trainlarge.results.units import scale_of
from trainlarge.sweep.files import replacing

INK, QUIET, GRID = "#222222", "#6b6b6b", "#e6e6e6"
FRONTIER = "#d0d3d9"
LineStyle = str | tuple[float, tuple[float, ...]]
LINE_STYLES: tuple[LineStyle, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
_COLOURS = ("plasma", 0.80, 0.0)
"""Colour map, its place for the smallest shape (orange) and for the largest (dark blue): lightness falls with size."""
_TICKS_A_DECADE = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "trainlarge",
    "svg.fonttype": "path",
    "figure.dpi": 100,
}
_DPI = 160


@contextmanager
def figure_of(columns: int = 1, width: float = 6.4, height: float = 4.1) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with ``columns`` panels side by side, in the style of this file; sizes in inches."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, list(figure.subplots(1, columns, squeeze=False, sharey=True)[0])


def save(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` with the suffixes .png and .svg; equal figures give equal files."""
    metadata: dict[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
    paths = [path.with_suffix(suffix) for suffix in metadata]
    with matplotlib.rc_context(_RC):
        for target in paths:
            with replacing(target) as temporary:
                figure.savefig(temporary, format=target.suffix[1:], dpi=_DPI, metadata=metadata[target.suffix])
    return paths


def colours(frame: pd.DataFrame) -> dict[str, str]:
    """Shape -> colour, from the smallest to the largest."""
    sizes = frame.dropna(subset=["shape"]).groupby("shape")["parameters"].min().reset_index()
    shapes = list(sizes.sort_values(["parameters", "shape"])["shape"])
    name, first, last = _COLOURS
    return {
        shape: to_hex(colormaps[name](place))
        for shape, place in zip(shapes, np.linspace(first, last, len(shapes)), strict=True)
    }


def line_styles(frame: pd.DataFrame) -> dict[str, LineStyle]:
    """Variant -> line style, in order of first appearance; they repeat after four."""
    return {
        variant: LINE_STYLES[index % len(LINE_STYLES)]
        for index, variant in enumerate(frame["variant"].dropna().unique())
    }


def log_axis(axes: Axes, column: str, values: pd.Series) -> None:
    """Make the x axis logarithmic, with its label and ticks with units: at ``values`` where they are few."""
    place = scale_of(column)
    axes.set_xscale("log")
    axes.set_xlabel(place.label)
    marked = _distinct(values)
    gaps = np.diff(np.log(marked))
    # Labels at all values have room where these are few and far apart.
    has_room = 1 < len(marked) <= 7 and gaps.min() > 0.09 * gaps.sum()
    axes.xaxis.set_major_locator(FixedLocator(marked if has_room else log_ticks(*axes.get_xlim())))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: place.write(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers in [low, high]: as few per decade as give three or more."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in _TICKS_A_DECADE:
        ticks = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _distinct(values: pd.Series) -> list[float]:
    """Distinct values, those that count as one replaced by their mean."""
    ordered = np.sort(values.unique().astype(float))
    starts = np.flatnonzero(np.diff(np.log(ordered)) > SAME_POINT) + 1
    return [float(group.mean()) for group in np.split(ordered, starts)]


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write labels to the right of the points (x, y, text, colour), moved apart where they would overlap."""
    places = spread([y for _, y, _, _ in ends], 0.055 * float(np.diff(axes.get_ylim())[0]))
    for (x, _, text, colour), y in zip(ends, places, strict=True):
        label = axes.annotate(
            text, (x, y), xytext=(8, 0), textcoords="offset points", color=colour, va="center", annotation_clip=False
        )
        label.set(fontweight="bold", path_effects=[withStroke(linewidth=3, foreground="white")], zorder=7)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """``values`` moved as little as needed to be ``gap`` apart, in the same order."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, dtype=float)[order]
    for _ in range(100):
        overlap = np.maximum(0.0, gap - np.diff(placed))
        if overlap.max(initial=0.0) < 1e-3 * gap:
            break
        placed[:-1] -= overlap / 2
        placed[1:] += overlap / 2
    result = np.empty_like(placed)
    result[order] = placed
    return [float(place) for place in result]


def note(axes: Axes, text: str, pad: float | None = None) -> None:
    """A quiet remark above the plot, ``pad`` points above it."""
    axes.set_title(text, loc="right", fontsize=8.5, fontweight="normal", color=QUIET, pad=pad)
