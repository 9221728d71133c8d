"""How figures look: colours and markers by size, line styles by variant, axes with units.

All is drawn on white, text with a contrast of at least 4.5 to 1 and lines with at least 3 to 1 (WCAG 2.2, 1.4.3 and
1.4.11), no series told by its colour alone. A figure is as wide as a telephone shows it with letters of 11 pixels.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from trainlarge.results.analysis.frontier import SAME_POINT
from trainlarge.results.units import scale_of
from trainlarge.sweep.files import replacing

INK, QUIET, GRID = "#222222", "#5f5f5f", "#e6e6e6"
FRONTIER, CROWD = "#8c8c8c", "#7a7a7a"
"""Of a frontier behind lines, and of cells that are told from one another by nothing."""
LineStyle = str | tuple[float, tuple[float, ...]]
LINE_STYLES: tuple[LineStyle, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
SIZES = ("plasma", 0.6, 0.0)
"""Colour map, its place for the smallest shape (red) and for the largest (dark blue): lightness falls with size."""
BUDGETS = ("viridis", 0.58, 0.0)
"""The same for the smallest and the largest budget."""
WIDTH = 4.6
"""Inches; 331 points, so that letters of 10.5 points are 11 pixels high where 358 are left for a figure."""
_POINTS = 10.5
_AXIS_WIDTH = 265.0
"""Points that are left for the axis of a figure, beside its labels."""
_PALENESS = 0.4
"""Share of a colour that is left in a pale one."""
_LETTER = 0.6 * _POINTS
"""Width of a letter of a label."""
_SHORT_NAME, _FEW_NAMES = 9, 6
"""Names of at most so many letters, and at most so many of them, are written at the ends of their lines."""
_LEGEND_LETTERS, _HANDLE_LETTERS = 50, 7
"""Letters in a line of a legend, and those whose room a marker takes with the space around it."""
_LONGEST_NAME = _LEGEND_LETTERS - _HANDLE_LETTERS
"""Letters of a name that has a line of a legend to itself."""
_TICKS_A_DECADE = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
_RC: Any = {
    # Verdana has the widths of DejaVu Sans, by which matplotlib places text.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Geneva", "Arial", "Helvetica"],
    "font.size": _POINTS,
    "axes.titlesize": _POINTS,
    "axes.titlelocation": "left",
    "axes.labelsize": _POINTS,
    "axes.labelcolor": INK,
    "axes.edgecolor": CROWD,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": CROWD,
    "ytick.color": CROWD,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": _POINTS,
    "ytick.labelsize": _POINTS,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": _POINTS,
    "legend.title_fontsize": _POINTS,
    "lines.solid_capstyle": "round",
    "legend.columnspacing": 1.2,
    "svg.hashsalt": "trainlarge",
    # Text stays text: it can be read aloud, searched and copied.
    "svg.fonttype": "none",
    "figure.dpi": 100,
}
_DPI = {".png": 200, ".svg": 130}
"""Of a whole PNG, and of the points that are an image within an SVG."""
_LABEL_LETTERS = 44
"""Letters in a line of an axis label."""
_REMARK_LETTERS = 54
"""Letters in a line of a remark."""


@contextmanager
def figure_of(panels: int = 1, height: float = 3.9) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with ``panels`` above one another, each ``height`` inches high, in the style of this file."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(WIDTH, panels * height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, list(figure.subplots(panels, 1, squeeze=False, sharey=True)[:, 0])


def save(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` with the suffixes .png and .svg; equal figures give equal files."""
    metadata: dict[str, dict[str, None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
    with matplotlib.rc_context(_RC):
        for suffix, values in metadata.items():
            with replacing(path.with_suffix(suffix)) as temporary:
                figure.savefig(temporary, format=suffix[1:], dpi=_DPI[suffix], metadata=values)
    return [path.with_suffix(suffix) for suffix in metadata]


def shapes_by_size(frame: pd.DataFrame) -> list[str]:
    """Shapes from the smallest to the largest."""
    sizes = frame.dropna(subset=["shape"]).groupby("shape")["parameters"].min().reset_index()
    return list(sizes.sort_values(["parameters", "shape"])["shape"])


def colours(frame: pd.DataFrame) -> dict[str, str]:
    """Shape -> colour, from the smallest to the largest."""
    shapes = shapes_by_size(frame)
    return dict(zip(shapes, shades(SIZES, len(shapes)), strict=True))


def markers(frame: pd.DataFrame) -> dict[str, str]:
    """Shape -> marker, from the smallest to the largest; they repeat after twelve."""
    return {shape: MARKERS[place % len(MARKERS)] for place, shape in enumerate(shapes_by_size(frame))}


def shades(part: tuple[str, float, float], count: int) -> list[str]:
    """So many colours of a part of a colour map."""
    name, first, last = part
    return [to_hex(colormaps[name](place)) for place in np.linspace(first, last, count)]


def pale(colour: str) -> str:
    """A colour mixed with white, for what is behind a stronger mark that says the same."""
    red, green, blue = (1 - _PALENESS * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def line_styles(frame: pd.DataFrame) -> dict[str, LineStyle]:
    """Variant -> line style, in order of first appearance; they repeat after four."""
    return {
        variant: LINE_STYLES[index % len(LINE_STYLES)]
        for index, variant in enumerate(frame["variant"].dropna().unique())
    }


@dataclass(frozen=True)
class Look:
    """How shapes and variants are told apart."""

    colour: Mapping[str, str]
    """Shape -> colour, from the smallest to the largest."""
    marker: Mapping[str, str]
    """Shape -> marker."""
    dashes: Mapping[str, LineStyle]
    """Variant -> line style."""

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Look:
        """What tells the shapes and variants of a frame apart."""
        return cls(colours(frame), markers(frame), line_styles(frame))

    def marked(self, shape: str) -> Marks:
        """Colour and marker of a line."""
        return marked(self.colour[shape], self.marker[shape])


class Marks(TypedDict):
    """Arguments of a line with markers."""

    color: str
    marker: str
    markersize: float
    markeredgecolor: str


def marked(colour: str, marker: str) -> Marks:
    """Arguments of a line with markers."""
    return {"color": colour, "marker": marker, "markersize": 7, "markeredgecolor": "white"}


def log_axis(axes: Axes, column: str, values: pd.Series) -> None:
    """Make the x axis logarithmic, with its label and ticks with units: at ``values`` where they are few."""
    place = scale_of(column)
    axes.set_xscale("log")
    axes.set_xlabel(textwrap.fill(place.label, _LABEL_LETTERS))
    low, high = axes.get_xlim()
    marked = _distinct(values)
    if len(fitting_ticks(marked, place.write, low, high)) < len(marked):
        marked = fitting_ticks(log_ticks(low, high), place.write, low, high)
    axes.xaxis.set_major_locator(FixedLocator(marked))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: place.write(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def fitting_ticks(ticks: Sequence[float], write: Callable[[float], str], low: float, high: float) -> list[float]:
    """Those of ``ticks``, ascending on a logarithmic axis, whose labels neither touch nor repeat the one before."""
    points_a_log = _AXIS_WIDTH / math.log(high / low)
    kept: list[float] = []
    for tick in ticks:
        text, before = write(tick), write(kept[-1]) if kept else ""
        room = points_a_log * math.log(tick / kept[-1]) if kept else math.inf
        if text != before and room > _LETTER * (len(text) + len(before)) / 2 + _LETTER:
            kept.append(tick)
    return kept


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


@dataclass(frozen=True)
class Named:
    """A line and its name."""

    name: str
    """What it is."""
    line: Line2D
    """How it is drawn."""

    @property
    def end(self) -> tuple[float, float]:
        """Its last point."""
        x, y = self.line.get_data()
        return float(np.asarray(x)[-1]), float(np.asarray(y)[-1])


def name_lines(axes: Axes, lines: Sequence[Named]) -> None:
    """Name lines at their ends where that has room, else below the figure."""
    if len(lines) <= _FEW_NAMES and all(len(line.name) <= _SHORT_NAME for line in lines):
        _label_ends(axes, lines)
    else:
        legend_below(axes, [line.line for line in lines], [line.name for line in lines])


def legend_below(axes: Axes, handles: Sequence[Artist], names: Sequence[str], title: str | None = None) -> None:
    """A legend below the figure, which grows by it, so that it covers no point."""
    figure = axes.get_figure(root=True)
    if figure is None or not names:
        return
    columns = max(1, min(len(names), _LEGEND_LETTERS // (max(map(len, names)) + _HANDLE_LETTERS)))
    rows = math.ceil(len(names) / columns) + (title is not None)
    figure.set_figheight(figure.get_figheight() + 1.5 * _POINTS * rows / 72)
    shown = [_shortened(name) for name in names]
    legend = figure.legend(handles, shown, loc="outside lower left", ncols=columns, title=title, handlelength=1.6)
    legend.set_alignment("left")


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _label_ends(axes: Axes, lines: Sequence[Named]) -> None:
    """Write names to the right of the last points, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    places = spread([line.end[1] for line in lines], 0.07 * (high - low))
    for line, y in zip(lines, places, strict=True):
        place = (line.end[0], y)
        label = axes.annotate(
            line.name, place, xytext=(8, 0), textcoords="offset points", va="center", annotation_clip=False
        )
        # A box and no outline: text with an outline would be no text in an SVG.
        label.set(fontweight="bold", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, zorder=7)


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


def note(axes: Axes, remarks: Sequence[str], pad: float | None = None) -> None:
    """Quiet remarks above the plot, ``pad`` points above it, in as many lines as they need."""
    lines: list[str] = []
    for remark in filter(None, remarks):
        if lines and len(lines[-1]) + len(remark) + 3 <= _REMARK_LETTERS:
            lines[-1] += f" · {remark}"
        else:
            lines += textwrap.wrap(remark, _REMARK_LETTERS)
    axes.set_title("\n".join(lines), loc="left", color=QUIET, pad=pad)
