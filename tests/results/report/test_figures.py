from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainlarge.errors import UserError
from trainlarge.results.frames import StudyFrames
from trainlarge.results.recipes import same_task
from trainlarge.results.report.figures import bytes_figure, increase_figure, size_figure, training_figure
from trainlarge.results.report.style import colours, log_ticks, save, spread

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
    points = {
        (round(x, 3), round(y, 3)) for line in axes.lines if line.get_marker() == "o" for x, y in line.get_xydata()
    }
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
    points = [point for line in left.lines if line.get_marker() == "o" for point in line.get_xydata()]
    assert len(points) == 11 and "left out: 1 whose seconds are no result" in left.get_title(loc="right")
    whole = training_figure(replace(frames, cells=shared), "flops").axes[0]
    assert sum(len(line.get_xydata()) for line in whole.lines if line.get_marker() == "o") == 12
    with pytest.raises(UserError, match="all cells shared their device"):
        training_figure(replace(frames, cells=shared.assign(per_device=2)), "train_seconds")


def test_models_that_predict_fewer_tokens_are_not_compared(frames: StudyFrames) -> None:
    compression = frames.compression.copy()
    easier = compression.index[-3:]
    compression.loc[easier, ["unknown_share", "loss"]] = [0.1, 0.01]
    assert len(same_task(compression)) == len(compression) - 3
    lowest = bytes_figure(compression).axes[0].get_ylim()[0]
    assert lowest > 0.01, "a loss of another task stretches no axis"


def test_the_loss_of_token_frequencies_is_drawn_where_it_is_near_and_told_where_it_is_not(frames: StudyFrames) -> None:
    near = frames.cells.assign(token_frequency_loss=4.3)
    for figure in (training_figure(replace(frames, cells=near), "step"), size_figure(near)):
        (axes,) = figure.axes
        levels = [set(line.get_ydata()) for line in axes.lines if line.get_linestyle() != "-"]
        assert {4.3} in levels and axes.get_ylim()[0] < 4.3 < axes.get_ylim()[1]
        assert "dotted: token frequencies alone, 4.30 nats" in axes.get_title(loc="right") + _texts(axes)
    for figure in (training_figure(frames, "step"), size_figure(frames.cells)):
        (axes,) = figure.axes
        assert "token frequencies alone: 5.90 nats, above the figure" in axes.get_title(loc="right") + _texts(axes)
        assert axes.get_ylim()[1] < 5.9
    old = frames.cells.assign(token_frequency_loss=float("nan"))
    assert "frequencies" not in _texts(size_figure(old).axes[0]) + _texts(size_figure(near, "accuracy").axes[0])


def _texts(axes: Axes) -> str:
    return " ".join(text.get_text() for text in axes.texts)
