from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from contrast import contrast
from trainlarge.errors import UserError
from trainlarge.results.analysis.frontier import envelope
from trainlarge.results.frames import StudyFrames
from trainlarge.results.recipes import same_task
from trainlarge.results.report.figures import size_figure, training_figure
from trainlarge.results.report.figures_of_compression import bytes_figure, increase_figure
from trainlarge.results.report.style import (
    BUDGETS,
    CROWD,
    FRONTIER,
    MARKERS,
    SIZES,
    colours,
    log_ticks,
    save,
    shades,
    spread,
)

PHONE = 358
"""Pixels that are left for a figure on a telephone of 390."""

FIGURES: dict[str, Callable[[StudyFrames], Figure]] = {
    "seconds": lambda frames: training_figure(frames, "model_seconds"),
    "accuracy": lambda frames: training_figure(frames, "flops", "accuracy"),
    "size": lambda frames: size_figure(frames.cells),
    "bytes": lambda frames: bytes_figure(frames.compression),
    "increase": lambda frames: increase_figure(frames.compression),
}


@pytest.mark.parametrize("name", FIGURES)
def test_equal_figures_give_equal_files(name: str, frames: StudyFrames, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    first, again = save(FIGURES[name](frames), tmp_path / name), save(FIGURES[name](frames), tmp_path / "again" / name)
    assert [path.suffix for path in first] == [".png", ".svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_every_cell_stands_in_the_figure_with_its_label(frames: StudyFrames) -> None:
    (axes,) = training_figure(frames, "model_seconds").axes
    points = {(round(x, 3), round(y, 3)) for x, y in _points(axes)}
    assert points == {(round(x, 3), round(y, 3)) for x, y in frames.cells[["model_seconds", "loss"]].to_numpy()}
    assert {text.get_text() for text in axes.texts} == set(frames.cells["series"])
    assert "nats" in axes.get_ylabel() and "(s" in axes.get_xlabel()


def test_colours_follow_size_whatever_the_rows(frames: StudyFrames) -> None:
    assert list(colours(frames.cells)) == ["d64/L1", "d64/L2", "d128/L2"]
    assert colours(frames.cells.sample(frac=1, random_state=0)) == colours(frames.cells)


def test_clocks_of_two_devices_are_refused_unless_told_to(frames: StudyFrames) -> None:
    mixed = replace(frames, cells=frames.cells.assign(device_name=["A", "B"] * 6))
    with pytest.raises(UserError, match="device_name"):
        training_figure(mixed, "train_seconds")
    training_figure(mixed, "train_seconds", allow_mixed=True)
    training_figure(mixed, "flops")


def test_losses_of_two_evaluation_sets_are_refused(frames: StudyFrames) -> None:
    mixed = frames.cells.assign(evaluation_fingerprint=["a", "b"] * 6)
    with pytest.raises(UserError, match="evaluation_fingerprint"):
        size_figure(mixed)


def test_nothing_compressed_is_refused(frames: StudyFrames) -> None:
    with pytest.raises(UserError, match="compression=no cells"):
        bytes_figure(frames.compression.iloc[:0])


def test_a_study_of_one_cell_can_be_drawn(frames: StudyFrames) -> None:
    one = frames.cells.iloc[:1]
    for figure in (training_figure(StudyFrames(one, frames.curves, frames.compression)), size_figure(one)):
        assert figure.axes[0].has_data()


def test_labels_are_moved_apart_in_order() -> None:
    placed = spread([1.0, 1.01, 1.02, 5.0], 0.5)
    assert placed == sorted(placed)
    assert all(right - left > 0.49 for left, right in pairwise(placed))
    assert placed[3] == pytest.approx(5.0)


@pytest.mark.parametrize(("low", "high"), [(7.0, 65.0), (1.3e12, 1.5e13), (1e3, 1e9), (2.0, 3.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    assert all(low <= tick <= high for tick in log_ticks(low, high))


def test_cells_that_shared_a_device_have_no_place_on_an_axis_in_seconds(frames: StudyFrames) -> None:
    shared = frames.cells.assign(per_device=[2] + [1] * 11)
    left = training_figure(replace(frames, cells=shared), "model_seconds").axes[0]
    assert len(_points(left)) == 11 and "left out: 1 whose seconds are no result" in left.get_title(loc="left")
    whole = training_figure(replace(frames, cells=shared), "flops").axes[0]
    assert len(_points(whole)) == 12
    with pytest.raises(UserError, match="all cells shared their device"):
        training_figure(replace(frames, cells=shared.assign(per_device=2)), "train_seconds")


def test_models_that_predict_fewer_tokens_are_not_compared(frames: StudyFrames) -> None:
    compression = frames.compression.copy()
    easier = compression.index[-3:]
    compression.loc[easier, ["unknown_share", "loss"]] = [0.1, 0.01]
    assert len(same_task(compression)) == len(compression) - 3
    lowest = bytes_figure(compression).axes[0].get_ylim()[0]
    assert lowest > 0.01, "a loss of another task stretches no axis"


def test_the_loss_of_token_frequencies_stands_beside_compressed_models_too(frames: StudyFrames) -> None:
    (axes,) = bytes_figure(frames.compression, frequency_loss=4.3).axes
    assert {4.3} in [set(line.get_ydata()) for line in axes.lines]
    assert "dotted: token frequencies alone, 4.30 nats" in axes.get_title(loc="left")


def test_text_and_lines_stand_out_from_the_background(frames: StudyFrames) -> None:
    for count in (1, 2, 12):
        for colour in (*shades(SIZES, count), *shades(BUDGETS, count), FRONTIER, CROWD):
            assert contrast(colour, "white") >= 3
    for draw in FIGURES.values():
        figure = draw(frames)
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert len(texts) > 4
        assert all(contrast(to_hex(text.get_color()), "white") >= 4.5 for text in texts)
        assert all(line.get_alpha() in (None, 1) for line in figure.findobj(Line2D)), "which would pale them"


def test_text_is_text_and_large_enough_for_a_phone(frames: StudyFrames, tmp_path: Path) -> None:
    for name, draw in FIGURES.items():
        _, svg = save(draw(frames), tmp_path / name)
        root = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
        width = float(root.attrib["viewBox"].split()[2])
        texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
        assert len(texts) > 8
        for text in texts:
            style = text.attrib["style"]
            size = float(style.partition("font-size: ")[2].partition("px")[0])
            assert size * PHONE / width >= 11, (name, text.text)
            assert "DejaVu Sans" in style and "sans-serif" in style


def test_series_are_not_told_apart_by_colour_alone(frames: StudyFrames) -> None:
    (axes,) = training_figure(frames, "flops").axes
    assert len({line.get_marker() for line in axes.lines} & set(MARKERS)) == 3
    (axes,) = size_figure(frames.cells).axes
    assert len({line.get_marker() for line in axes.lines} & set(MARKERS)) == 4
    figure = increase_figure(frames.compression)
    assert [len({line.get_marker() for line in axes.lines} & set(MARKERS)) for axes in figure.axes] == [3, 3]
    legend = bytes_figure(frames.compression).legends[0]
    assert len({line.get_marker() for line in legend.get_lines()}) == 3


@pytest.mark.parametrize("spread_of_values", [1.0, 0.1, 0.004])
def test_ticks_never_repeat_and_never_touch(frames: StudyFrames, spread_of_values: float) -> None:
    """Also where all accuracies are between 7.2 and 7.6 per cent, and budgets a few per cent apart."""
    cells = frames.cells.copy()
    for name in ("accuracy", "loss", "model_seconds", "flops", "parameters"):
        cells[name] = cells[name].iloc[0] + spread_of_values * (cells[name] - cells[name].iloc[0])
    near = replace(frames, cells=cells)
    for figure in (
        training_figure(near, "model_seconds", "accuracy"),
        training_figure(near, "flops"),
        size_figure(cells, "accuracy"),
        bytes_figure(frames.compression),
        increase_figure(frames.compression),
    ):
        figure.draw_without_rendering()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1]
                labels = [tick.label1 for tick in ticks if tick.label1.get_text()]
                assert len({label.get_text() for label in labels}) == len(labels) > 0
                boxes = [label.get_window_extent() for label in labels]
                assert not any(left.overlaps(right) for left, right in pairwise(boxes)), [t.get_text() for t in labels]


def test_a_legend_covers_no_point(frames: StudyFrames) -> None:
    long_names = replace(frames, cells=frames.cells.assign(series=frames.cells["series"] + ", optim.lr=0.001"))
    for figure in (
        training_figure(long_names, "flops"), bytes_figure(frames.compression), increase_figure(frames.compression),
        training_figure(_crowded(frames), "flops"), bytes_figure(_many_shapes(frames)),
    ):  # fmt: skip
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0


def test_of_many_series_every_cell_is_a_dot_and_the_best_are_lines(frames: StudyFrames) -> None:
    crowded = _crowded(frames)
    (axes,) = training_figure(crowded, "flops").axes
    dots = axes.collections[0].get_offsets()
    assert len(dots) == len(crowded.cells) == 480
    assert {tuple(dot) for dot in np.round(dots, 6)} == {
        tuple(cell) for cell in crowded.cells[["flops", "loss"]].round(6).to_numpy()
    }
    assert "all 480 cells" in axes.get_title(loc="left") and "the 12 best of 120" in axes.get_title(loc="left")
    lowest = crowded.cells.loc[crowded.cells["loss"].idxmin(), "series"]
    assert lowest in [text.get_text() for text in axes.get_figure().legends[0].get_texts()]
    best = envelope(crowded.cells, "flops")
    assert any(np.array_equal(line.get_ydata(), best["y"]) for line in axes.lines), "the frontier is that of all"


def test_many_budgets_are_sampled_with_both_ends(frames: StudyFrames) -> None:
    rows = [frames.cells.assign(budget_value=value, budget=f"{value} s").iloc[[0, 4, 8]] for value in range(1, 41)]
    (axes,) = size_figure(pd.concat(rows, ignore_index=True)).axes
    names = [text.get_text() for text in axes.get_figure().legends[0].get_texts()]
    assert names[0] == "1 s" and names[-1] == "40 s" and len(names) == 8
    assert "8 of 40 budgets" in axes.get_title(loc="left")


def test_of_many_shapes_those_on_the_frontier_have_names(frames: StudyFrames) -> None:
    many = _many_shapes(frames)
    figure = bytes_figure(many)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "d64/L1" in names and len(names) == 12
    assert "grey: 18 other shapes" in figure.axes[0].get_title(loc="left").replace("\n", " · ")
    drawn = sum(len(dots.get_offsets()) for dots in figure.axes[0].collections)
    assert drawn == len(many)
    assert "12 best of 30 shapes" in increase_figure(many).axes[0].get_title(loc="left")


def _many_shapes(frames: StudyFrames) -> pd.DataFrame:
    """What was compressed of one shape, as if it were of 30."""
    parts = []
    for number in range(30):
        part = frames.compression[frames.compression["shape"] == "d64/L1"].copy()
        part["shape"] = part["series"] = f"d{64 + number}/L1"
        part["cell"] += f" {number}"
        part["parameters"] += number
        part[["loss", "dense_loss"]] += 0.01 * number
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _crowded(frames: StudyFrames) -> StudyFrames:
    """40 variants of each shape, with other losses."""
    parts = []
    for number in range(40):
        part = frames.cells.copy()
        part["variant"] = f"optim.lr={number}"
        part["series"] += f", optim.lr={number}"
        part["cell"] += f" {number}"
        part["loss"] += 0.01 * number
        parts.append(part)
    return replace(frames, cells=pd.concat(parts, ignore_index=True))


def test_the_loss_of_token_frequencies_is_drawn_where_it_is_near_and_told_where_it_is_not(frames: StudyFrames) -> None:
    near = frames.cells.assign(frequency_loss=4.3)
    for figure in (training_figure(replace(frames, cells=near), "step"), size_figure(near)):
        (axes,) = figure.axes
        levels = [set(line.get_ydata()) for line in axes.lines if line.get_linestyle() != "-"]
        assert {4.3} in levels and axes.get_ylim()[0] < 4.3 < axes.get_ylim()[1]
        assert "dotted: token frequencies alone, 4.30 nats" in axes.get_title(loc="left") + _texts(axes)
    for figure in (training_figure(frames, "step"), size_figure(frames.cells)):
        (axes,) = figure.axes
        assert "token frequencies alone: 5.90 nats, above the figure" in axes.get_title(loc="left") + _texts(axes)
        assert axes.get_ylim()[1] < 5.9
    old = frames.cells.assign(frequency_loss=float("nan"))
    assert "frequencies" not in _texts(size_figure(old).axes[0]) + _texts(size_figure(near, "accuracy").axes[0])


def _points(axes: Axes) -> list[tuple[float, float]]:
    return [(x, y) for line in axes.lines if line.get_marker() in MARKERS for x, y in line.get_xydata()]


def _texts(axes: Axes) -> str:
    return " ".join(text.get_text() for text in axes.texts)
