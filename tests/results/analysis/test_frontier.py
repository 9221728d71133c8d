from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.results.analysis.frontier import crossings, envelope, frontier, leaders
from trainlarge.results.frames import StudyFrames

VALUES = st.integers(0, 6).map(float)


def lines_frame(**series: list[tuple[float, float]]) -> pd.DataFrame:
    """Cells from (x, loss) points, one series a keyword, in order of size."""
    rows = [
        {
            "series": name,
            "parameters": size,
            "budget_unit": "s",
            "budget_value": x,
            "model_seconds": x,
            "loss": loss,
            "seed": 0,
            "cell": f"{name}{x}",
        }
        for size, (name, points) in enumerate(series.items())
        for x, loss in points
    ]
    return pd.DataFrame(rows)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30), st.sampled_from(["loss", "accuracy"]))
def test_frontier_is_what_the_definition_says(points: list[tuple[float, float]], y: str) -> None:
    frame = pd.DataFrame(points, columns=["flops", y]).assign(cell=[f"{i:02}" for i in range(len(points))])
    sign = -1 if y == "accuracy" else 1

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and sign * a[1] <= sign * b[1] and a != b

    expected = {points.index(point) for point in points if not any(beats(other, point) for other in points)}
    found = frontier(frame, "flops", y)
    assert set(found["cell"]) == {f"{i:02}" for i in expected}
    assert found["flops"].is_monotonic_increasing


@given(st.permutations(list(range(8))))
def test_frontier_does_not_depend_on_the_order_of_rows(order: list[int]) -> None:
    frame = pd.DataFrame(
        {"cell": list("abcdefgh"), "flops": [1.0, 1, 2, 2, 3, 3, 4, 4], "loss": [3.0, 3, 2, 2.5, 2, 1, 1, 1]}
    )
    assert list(frontier(frame.iloc[order], "flops")["cell"]) == ["a", "c", "f"]


def test_rows_without_a_value_are_no_part_of_the_frontier() -> None:
    frame = pd.DataFrame({"cell": ["a", "b"], "flops": [1.0, 2.0], "loss": [math.nan, 1.0]})
    assert list(frontier(frame, "flops")["cell"]) == ["b"]


def test_lines_that_cross_between_budgets_cross_where_they_should() -> None:
    cells = lines_frame(small=[(1, 3.0), (100, 2.0)], large=[(1, 4.0), (100, 1.0)])
    (row,) = crossings(cells, "model_seconds").to_dict("records")
    assert (row["before"], row["after"]) == ("small", "large")
    assert row["x"] == pytest.approx(10.0)
    assert (row["low"], row["high"]) == pytest.approx((1.0, 100.0))
    assert (row["margin_low"], row["margin_high"]) == pytest.approx((1.0, 1.0))
    assert row["sure"] and row["of_best"]


def test_a_bracket_reaches_to_the_nearest_clear_leads() -> None:
    cells = lines_frame(
        small=[(1, 3.0), (2, 3.0), (4, 3.0), (8, 3.0)], large=[(1, 3.5), (2, 3.05), (4, 2.95), (8, 2.0)]
    )
    (row,) = crossings(cells, "model_seconds").to_dict("records")
    assert (row["low"], row["high"]) == pytest.approx((1.0, 8.0))
    assert row["sure"]


def test_a_change_within_a_tie_is_not_sure() -> None:
    cells = lines_frame(small=[(1, 3.0), (10, 2.0)], large=[(1, 3.05), (10, 1.95)])
    (row,) = crossings(cells, "model_seconds").to_dict("records")
    assert not row["sure"]
    assert leaders(cells, "model_seconds")["tie"].all()


def test_a_line_that_touches_does_not_cross() -> None:
    cells = lines_frame(small=[(1, 3.0), (2, 2.0), (4, 1.0)], large=[(1, 4.0), (2, 2.0), (4, 1.5)])
    assert crossings(cells, "model_seconds").empty


def test_a_change_behind_the_best_is_told_from_one_of_the_best() -> None:
    cells = lines_frame(best=[(1, 1.0), (100, 0.5)], small=[(1, 3.0), (100, 2.0)], large=[(1, 4.0), (100, 1.0)])
    (row,) = crossings(cells, "model_seconds").to_dict("records")
    assert not row["of_best"]


def test_series_are_compared_only_where_both_have_been() -> None:
    cells = lines_frame(early=[(1, 3.0), (4, 2.0)], late=[(8, 2.5), (16, 1.0)])
    assert leaders(cells, "model_seconds").empty
    assert crossings(cells, "model_seconds").empty


def test_budgets_that_became_whole_steps_count_as_one_point() -> None:
    cells = lines_frame(small=[(1.0, 3.0), (10.01, 2.0)], large=[(1.002, 4.0), (10.0, 1.0)])
    assert list(leaders(cells, "model_seconds")["best"]) == ["small", "large"]


def test_seeds_are_averaged() -> None:
    cells = lines_frame(small=[(1, 3.0), (10, 2.0)], large=[(1, 4.0), (10, 1.0)])
    other = cells.assign(seed=1, loss=cells["loss"] + 0.2, cell=cells["cell"] + "b")
    both = leaders(pd.concat([cells, other]), "model_seconds")
    assert list(both["loss"]) == pytest.approx([3.1, 1.1])


def test_a_cell_that_diverged_leads_nowhere(frames: StudyFrames) -> None:
    cells = frames.cells.assign(loss=frames.cells["loss"].where(frames.cells["series"] != "d64/L2"))
    assert "d64/L2" not in set(leaders(cells, "step")["best"])
    assert envelope(cells, "step")["y"].notna().all()


def test_the_measured_study_has_its_known_crossing(frames: StudyFrames) -> None:
    (row,) = crossings(frames.cells, "model_seconds").to_dict("records")
    assert (row["before"], row["after"]) == ("d64/L1", "d128/L2")
    assert 30 < row["x"] < 60
    table = leaders(frames.cells, "model_seconds")
    assert list(table["best"]) == ["d64/L2"] * 4
    assert list(leaders(frames.cells, "step").query("compared == 3")["best"].unique()) == ["d128/L2"]


def test_the_envelope_is_nowhere_above_a_cell(frames: StudyFrames) -> None:
    for y, sign in (("loss", 1), ("accuracy", -1)):
        line = envelope(frames.cells, "flops", y)
        cells = frames.cells[frames.cells["flops"] <= line["x"].max()]
        level = np.interp(np.log(cells["flops"]), np.log(line["x"]), sign * line["y"])
        assert (level <= sign * cells[y] + 1e-2).all()
