"""Units, directions and thresholds come from the task of the cells."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

import pandas as pd
import pytest

from trainlarge.config.metric import Metric
from trainlarge.config.task import TASKS, TaskConfig
from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.frontier import frontier, leaders
from trainlarge.results.frames import StudyFrames
from trainlarge.results.report.figures import size_figure
from trainlarge.results.report.figures_of_compression import bytes_figure, increase_figure
from trainlarge.results.report.findings import findings
from trainlarge.results.report.tables import tables
from trainlarge.results.scores import ANY_TASK, score_text, scores


class Pictures(TaskConfig):
    """A task whose loss has another unit and other thresholds."""

    metrics: ClassVar = {
        "loss": Metric("bits per pixel", "evaluation loss", tie=0.5, negligible=0.07, broken=3.0),
        "accuracy": Metric("1", "share of pixels that are right", higher_is_better=True),
        "blur": Metric("pixels", "width of an edge", higher_is_better=True),
    }


@pytest.fixture
def pictures(frames: StudyFrames, monkeypatch: pytest.MonkeyPatch) -> StudyFrames:
    """The made study, as if its task were about pictures."""
    monkeypatch.setitem(TASKS, "mlm", Pictures)
    return replace(frames, cells=frames.cells.assign(blur=2.0), compression=frames.compression.assign(blur=2.0))


def test_no_sentence_and_no_table_names_the_unit_of_another_task(pictures: StudyFrames) -> None:
    evidence = Evidence(pictures)
    words = [str(finding) for finding in findings(pictures, evidence)]
    for table in tables(pictures, evidence):
        words += [table.note, *table.header]
    assert not [text for text in words if re.search(r"\bnats?\b", text)]
    assert any("bits" in text for text in words)
    assert any("bits per pixel" in text for text in words)
    assert any("blur" in table.header for table in tables(pictures, evidence))


def test_figures_name_the_unit_of_the_task(pictures: StudyFrames) -> None:
    assert size_figure(pictures.cells).axes[0].get_ylabel() == "evaluation loss (bits per pixel)"
    assert size_figure(pictures.cells, "accuracy").axes[0].get_ylabel() == "share of pixels that are right"
    assert bytes_figure(pictures.compression).axes[0].get_ylabel() == "evaluation loss (bits per pixel)"
    assert increase_figure(pictures.compression).axes[0].get_ylabel() == "loss increase (bits per pixel)"


def test_the_task_says_what_is_better_and_what_is_a_tie(pictures: StudyFrames) -> None:
    rows = pd.DataFrame({"task": "mlm", "cell": ["a", "b"], "step": [1, 2], "blur": [1.0, 2.0], "loss": [2.0, 1.0]})
    assert list(frontier(rows, "step", "blur")["cell"]) == ["a", "b"]
    assert list(frontier(rows.assign(task="unknown"), "step", "blur")["cell"]) == ["a"]
    table = leaders(pictures.cells, "step")
    assert (table["tie"] == (table["margin"] < 0.5)).all()


def test_frames_of_several_tasks_or_of_an_unknown_one_have_words_that_hold_for_all() -> None:
    assert scores(pd.DataFrame({"task": ["mlm", "other"]})) is ANY_TASK
    assert scores(pd.DataFrame({"task": ["other"]})) is ANY_TASK
    assert scores(pd.DataFrame({"loss": [1.0]})) is ANY_TASK
    assert scores(pd.DataFrame({"task": ["mlm"]}))["loss"].unit == "nats per masked token"


def test_an_amount_is_a_number_with_its_unit() -> None:
    loss = ANY_TASK["loss"]
    assert (loss.amount(1.0), loss.amount(0.02)) == ("1 nat", "0.02 nats")
    assert score_text(ANY_TASK["accuracy"], 0.5) == "50.0%" and score_text(loss, 0.5) == "0.500"
