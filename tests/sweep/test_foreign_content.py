"""Small files of a study that hold something else, in JSON that is valid: healed, or read as damaged; no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import made
from trainlarge.commands.status import read_state
from trainlarge.config.group import Plain
from trainlarge.errors import UserError
from trainlarge.launch.slurm.submission import Submission, submissions
from trainlarge.machine.probe import StepTiming
from trainlarge.machine.step_time import Round
from trainlarge.results.frames import load_study
from trainlarge.sweep import files
from trainlarge.sweep.history import commands_of, remember_command
from trainlarge.sweep.lease import Lease, is_held
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.step_times import CellSteps, budgets_missed, read_measured
from trainlarge.sweep.store import CellFolder, Study

FOREIGN = ["{}", "[]", "null", "7", '"text"', '{"a": {"b": 1}}']


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study(tmp_path / "s")
    made.make_train_cell(study, (64, 1), 7.5)
    return study


@pytest.fixture
def folder(study: Study) -> CellFolder:
    return next(study.folders("train"))


@pytest.mark.parametrize("content", [*FOREIGN, '{"state": "gone"}', '{"state": "done", "attempts": "two"}'])
def test_a_whole_record_stands_for_a_foreign_status(study: Study, folder: CellFolder, content: str) -> None:
    (folder.path / "status.json").write_text(content)
    assert folder.status().state is State.DONE and folder.is_done() and folder.says_done()
    folder.record_path.unlink()
    damaged = folder.status()
    assert damaged.state is State.FAILED and "status.json is damaged" in str(damaged.error)
    assert not folder.is_done() and read_state(study).cells[0].state == State.FAILED


@pytest.mark.parametrize("progress", ["[]", '"half"', '{"step": "many"}', '{"seconds_left": []}'])
def test_foreign_progress_is_a_damaged_status(folder: CellFolder, progress: str) -> None:
    folder.record_path.unlink()
    (folder.path / "status.json").write_text(f'{{"state": "running", "progress": {progress}}}')
    assert folder.status().state is State.FAILED


def test_keys_of_a_newer_version_do_not_hide_a_status(folder: CellFolder) -> None:
    status = {**folder.status().to_json(), "mood": "fine", "progress": {"step": 3, "watts": 250}}
    (folder.path / "status.json").write_text(json.dumps(status))
    assert folder.status().state is State.DONE and folder.status().progress.step == 3
    assert folder.status().progress.to_json() == {"step": 3}


@pytest.mark.parametrize("content", [*FOREIGN, '{"cell": "ID", "config": []}', '{"cell": "ID"}'])
def test_a_foreign_record_is_damaged(folder: CellFolder, content: str) -> None:
    folder.record_path.write_text(content.replace("ID", folder.id))
    for read in (folder.record, folder.record_data, folder.metrics, folder.prove):
        with pytest.raises(UserError, match=r"record\.json=damaged.*trainlarge redo"):
            read()
    assert folder.damaged_result() is not None


@pytest.mark.parametrize(
    "change", [{"files": ["metrics.jsonl"]}, {"loss": "low"}, {"config": {}}, {"config": {"a": 1}}]
)
def test_a_record_without_a_seal_is_damaged_where_it_is_no_record(
    study: Study, folder: CellFolder, change: dict[str, Plain]
) -> None:
    made.make_train_cell(study, (64, 2), 7.5)
    data = folder.record_data()
    folder.record_path.write_text(json.dumps(data))
    assert folder.metrics() and folder.damaged_result() is None and len(load_study(study).cells) == 2
    folder.record_path.write_text(json.dumps({**data, **change}))
    assert folder.damaged_result() is not None
    with pytest.raises(UserError, match=rf"record\.json=damaged.*trainlarge redo {folder.id}"):
        load_study(study)
    with pytest.warns(UserWarning, match=f"cell {folder.id} is left out"):
        assert len(load_study(study, strict=False).cells) == 1


def test_values_of_other_types_below_a_right_seal_are_named(study: Study, folder: CellFolder) -> None:
    write_sealed(folder.record_path, {**folder.record_data(), "loss": {"a": 1}})
    with pytest.raises(UserError, match=r"record\.json=damaged"):
        load_study(study)


def test_rows_of_a_curve_without_a_digest_are_numbers(study: Study, folder: CellFolder) -> None:
    data = folder.record_data()
    (folder.path / "metrics.jsonl").write_text('{"step": 1, "loss": "low"}\n')
    folder.record_path.write_text(json.dumps({name: value for name, value in data.items() if name != "files"}))
    with pytest.raises(UserError, match=r"metrics\.jsonl=damaged"):
        load_study(study)


def test_a_file_that_is_called_like_a_cell_is_none_and_named_where_it_is_in_the_way(
    study: Study, folder: CellFolder
) -> None:
    cell = folder.cell()
    shutil.rmtree(folder.path)
    folder.path.write_text("a note")
    assert list(study.folders("train")) == [] and folder.status().state is State.MISSING
    with pytest.raises(UserError, match=f"{folder.id}=a file is not valid: must be a folder: remove the file"):
        folder.freeze(cell)


def test_a_pipe_in_the_place_of_a_file_is_waited_for_by_nobody(study: Study, folder: CellFolder) -> None:
    for name in ("status.json", "record.json", "config.yaml"):
        (folder.path / name).unlink()
        os.mkfifo(folder.path / name)
    assert folder.status().state is State.FAILED and read_state(study).cells[0].state == State.FAILED
    with pytest.raises(UserError, match=r"config\.yaml=damaged.*freezes it again"):
        folder.cell()


def test_a_file_without_end_is_read_up_to_a_bound(folder: CellFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="larger than"):
        files.read_bytes("/dev/zero")


@pytest.mark.parametrize("content", FOREIGN)
def test_a_lease_of_foreign_content_is_judged_by_its_heartbeat(folder: CellFolder, content: str) -> None:
    lease = Lease.acquire(folder.path)
    assert lease is not None
    lease.path.write_text(content)
    assert is_held(folder.path), "its heartbeat is new"


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_rows_of_the_history_are_passed_over(study: Study, content: str) -> None:
    remember_command(study, "train", "trainlarge train seed=1")
    with (study.path / "commands.jsonl").open("a") as file:
        file.write(f'{content}\n{{"stage": "train", "command": 3}}\n')
    assert commands_of(study, "train", {"0" * 12}) == (["trainlarge train seed=1"], set())


@pytest.mark.parametrize(
    "content",
    [
        *FOREIGN,
        '{"rounds": [{}]}',
        '{"rounds": 1}',
        '{"step_seconds": "1"}',
        '{"step_seconds": 0, "cells": {"a": 1}}',
        '{"rounds": [{"kind": "probe", "ended": 1, "steps": 1, "fastest": [], "thread_share": 1, "cpu_seconds": 1}]}',
        '{"cells": []}',
    ],
)
def test_foreign_step_times_are_measured_again(study: Study, content: str) -> None:
    timing = StepTiming(study.path / "probes", {"shape": 1})
    timing.path.parent.mkdir()
    timing.path.write_text(content)
    assert not budgets_missed(study)
    assert timing.rounds() == () and timing.estimate() is None
    timing.add(Round.of_before(0.25, 10))
    assert timing.estimate() == 0.25 and StepTiming.of_file(timing.path).key == {"shape": 1}


@pytest.mark.parametrize("content", [*FOREIGN, '{"steps": 1.5, "step_seconds": 1}', '{"steps": "2"}'])
def test_foreign_steps_of_a_cell_are_counted_again(folder: CellFolder, content: str) -> None:
    path = folder.path / "steps.json"
    path.write_text(content)
    assert read_measured(CellSteps, path) is None


def test_a_status_is_written_as_it_always_was(folder: CellFolder) -> None:
    folder.write_status(Status(State.QUEUED, updated=1.0))
    assert json.loads((folder.path / "status.json").read_text()) == {
        "state": "queued", "attempts": 0, "error": None, "progress": {}, "retries": 0, "updated": 1.0
    }  # fmt: skip


@pytest.mark.parametrize("content", [*FOREIGN, '{"schema": 1, "stage": "train", "created": 1, "launcher": []}'])
def test_a_foreign_submission_is_left_out(study: Study, content: str) -> None:
    path = study.path / "slurm" / "a.json"
    path.parent.mkdir()
    path.write_text(content)
    assert submissions(study) == []
    with pytest.raises(ValueError, match="must be"):
        Submission.read(path)


def test_an_array_task_names_a_foreign_submission_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"schema": 1, "jobs": 7}')
    command = [sys.executable, "-m", "trainlarge.launch.slurm.task", str(path), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{path}=JsonTypeError is not valid: must be what trainlarge wrote") and "stage" in line


def test_a_frozen_configuration_that_is_no_text_is_frozen_again(folder: CellFolder) -> None:
    cell = folder.cell()
    folder.record_path.unlink()
    whole = folder.config_path.read_bytes()
    folder.config_path.write_bytes(b"\xff\xfe" + whole)
    folder.freeze(cell)
    assert folder.config_path.read_bytes() == whole
