"""The report of every task speaks of what that task predicts, and of nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from matplotlib.text import Text

import made
from trainlarge.config.task import TASKS
from trainlarge.results import (
    Evidence,
    best_sizes,
    findings,
    load_study,
    size_figure,
    training_figure,
    write_report,
)
from trainlarge.results.columns import CELLS
from trainlarge.results.frames import StudyFrames
from trainlarge.results.scores import is_judged_by_loss, scores

WORDS = {
    "masked tokens": re.compile(r"\bmask(?:s|ed)?\b|\bmask_rate\b|\bmasked token", re.IGNORECASE),
    "token frequencies": re.compile(r"token frequenc", re.IGNORECASE),
    "label frequencies": re.compile(r"label frequenc", re.IGNORECASE),
    "next tokens": re.compile(r"next token", re.IGNORECASE),
    "mean label": re.compile(r"the mean label", re.IGNORECASE),
    "numbers": re.compile(r"squared error", re.IGNORECASE),
    "labelled rows": re.compile(r"rows? labelled|nats per row", re.IGNORECASE),
}
SAID = {
    "mlm": {"masked tokens", "token frequencies"},
    "causal_lm": {"next tokens", "token frequencies"},
    "classification": {"labelled rows", "label frequencies"},
    "regression": {"numbers", "mean label"},
}
"""Task -> what its report speaks of."""


@pytest.fixture(params=sorted(TASKS))
def report(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Path]:
    """A task, the text of its report, and the study; one size has learned nothing yet, and was compressed."""
    task = request.param
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"sentence {index}", "label": str(index % 2)} for index in range(50)]
    (tmp_path / "sentences.jsonl").write_text("\n".join(map(json.dumps, rows)))
    study = made.make_study(tmp_path / task, (7.5, 60.0), task=task)
    stuck = made.make_train_cell(study, (64, 1), 3.0, task=task, loss=5.95)
    made.make_compress_cell(study, stuck, 0.3, 8)
    page = re.sub(r"data:image[^\"]*|<style>.*?</style>", "", write_report(study).read_text(), flags=re.DOTALL)
    return task, page, study.path


def words_of_figures(frames: StudyFrames) -> str:
    named = {"accuracy"} & scores(frames.cells).keys()
    figures = (training_figure(frames), *(size_figure(frames.cells, name) for name in ("loss", *named)))
    return "\n".join(text.get_text() for figure in figures for text in figure.findobj(Text))


def test_a_report_speaks_of_what_its_task_predicts(report: tuple[str, str, Path]) -> None:
    task, page, path = report
    frames = load_study(path)
    sentences = page + words_of_figures(frames)
    assert {name for name, pattern in WORDS.items() if pattern.search(sentences)} == SAID[task]
    if not is_judged_by_loss(task):
        assert "lowest measured loss" not in page and "has learned more than" not in page
        return
    for start in ("not 0.", "Left out of all comparisons of compressed models: d64/L1 after 3 s"):
        assert start in page, "the sentences on sizes that have learned nothing are among those looked at"

    frames.cells["loss"] = 5.95
    sentences = "\n".join(map(str, [*findings(frames), *best_sizes(Evidence(frames), "model_seconds")]))
    assert f"No model has learned more than {TASKS[task].frequencies}" in sentences
    assert f"none ({TASKS[task].frequencies} alone do as well)" in sentences


def test_columns_of_one_task_are_stated_by_it() -> None:
    stated = {name: meaning for task in TASKS.values() for name, meaning in task.columns.items()}
    assert set(stated) == {"mask_rate"}
    for name, (unit, text) in stated.items():
        assert (CELLS[name].unit, CELLS[name].description) == (unit, text)
        assert CELLS[name].source == f"config.task.{name}"
