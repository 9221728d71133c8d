"""How far a preparation is: seen from outside while it runs, gone when it ends, a bar on terminals only."""

from __future__ import annotations

import io
import os
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from trainlarge.data import progress
from trainlarge.data.prepare import prepare
from trainlarge.data.progress import Meter, Preparation, preparations
from trainlarge.launch.progress import ProgressWatcher
from trainlarge.sweep.plan import Plan
from trainlarge.sweep.store import Study


def test_a_preparation_is_seen_while_it_runs_and_leaves_nothing(data, text_file, tmp_path, monkeypatch):
    seen = []
    write = progress.write_json
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(
        progress, "write_json", lambda *args, **how: (write(*args, **how), seen.extend(preparations(tmp_path)))
    )
    prepared = prepare(data, tmp_path)
    assert list(dict.fromkeys(entry.part for entry in seen)) == ["tokenizer", "validation", "training"]
    size = text_file.stat().st_size
    assert {entry.total for entry in seen} == {size} and 0 < max(entry.characters for entry in seen) <= size
    assert preparations(tmp_path) == [] and not list(Path(prepared.folder).glob("progress*"))


def test_the_file_of_a_builder_that_died_is_passed_over(tmp_path):
    folder = tmp_path / ".0123.partial"
    folder.mkdir()
    meter = Meter(folder / progress.PROGRESS)
    meter._next = 0.0
    assert list(meter.of("training", ["one", "two"])) == ["one", "two"]
    assert preparations(tmp_path) == [Preparation("training", 3)]
    old = time.time() - 2 * progress.SILENT_SECONDS
    os.utime(folder / progress.PROGRESS, (old, old))
    assert preparations(tmp_path) == []
    (folder / progress.PROGRESS).write_text("{")
    assert preparations(tmp_path) == []


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bars_are_for_terminals_only(tmp_path, is_terminal):
    study = Study(tmp_path / "mine")
    folder = study.data_root / ".0123.partial"
    folder.mkdir(parents=True)
    meter = Meter(folder / progress.PROGRESS, total=100_000_000)
    meter._next = 0.0
    list(meter.of("training", ["x" * 7_000_000]))
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=is_terminal, width=120, _environ={"TERM": "xterm"})
    with ProgressWatcher(study, Plan("train", (), ()), console) as watcher:
        watcher.update([], [])
        watcher._progress.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.getvalue())
    assert ("7/100 MB of text for training" in shown) == is_terminal
    assert is_terminal or not printed.getvalue()
