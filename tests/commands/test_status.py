from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import made
from trainlarge.cli import main
from trainlarge.commands import status_view
from trainlarge.commands.status import STALE, read_state
from trainlarge.commands.status_view import view, watch
from trainlarge.launch.launcher import JobState
from trainlarge.launch.progress import ProgressWatcher
from trainlarge.sweep.history import commands_of, remember_command
from trainlarge.sweep.lease import LEASE_SECONDS, Lease
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.status import CellProgress, State, Status
from trainlarge.sweep.store import CellFolder, Study

SHAPE = (64, 1)


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """One cell in each state that is not done, one done, one diverged."""
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    study = Study(tmp_path / "mixed")
    made.make_train_cell(study, SHAPE, 7.5)
    made.make_train_cell(study, SHAPE, 15.0, diverged=True, loss=None)
    for seed, status in enumerate(STATUSES):
        cell = made.train_cell("mixed", SHAPE, "30 s", seed)
        folder = study.folder("train", cell.id)
        folder.freeze(cell)
        folder.write_status(status)
    return study


PROGRESS = {"step": 120, "steps": 4000, "loss": 3.25, "seconds_left": 95.0}
STATUSES = [
    Status(State.QUEUED),
    Status(State.RUNNING, attempts=1, progress=CellProgress(**PROGRESS)),
    Status(State.FAILED, attempts=3, error="RuntimeError: [oom] out of memory"),
    Status(State.PREEMPTED, attempts=1),
]


def cell_in(study: Study, state: State) -> CellFolder:
    [folder] = [folder for folder in study.folders("train") if folder.status().state is state]
    return folder


def text_of(study: Study) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(view(read_state(study), is_terminal=False))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_every_state_is_counted_and_what_matters_is_shown(mixed: Study) -> None:
    running, failed = cell_in(mixed, State.RUNNING), cell_in(mixed, State.FAILED)
    assert Lease.acquire(running.path)
    state = read_state(mixed)
    assert state.counts() == {"train": {"done": 2, "queued": 1, "running": 1, "failed": 1, "preempted": 1}}
    text = text_of(mixed)
    for part in (running.id, "120", "4,000", "3.250", "95 s", failed.id, "RuntimeError: [oom] out of memory",
                 "diverged", f"next: trainlarge show {failed.id} --study mixed", "next: trainlarge redo "):  # fmt: skip
        assert part in text
    assert STALE not in text


def test_the_command_that_goes_on_is_the_one_that_was_given(mixed: Study) -> None:
    for command in ("trainlarge train -m +sweeps=mine/train", "trainlarge train -m seed=0,1 launcher=slurm"):
        remember_command(mixed, "train", command)
        remember_command(mixed, "train", command)
    with (mixed.path / "commands.jsonl").open("a") as file:
        file.write('{"time": 1, "sta')
    assert commands_of(mixed, "train", {"0" * 12}) == ([command], set())
    remember_command(mixed, "compress", command)
    assert [commands_of(mixed, stage, {"0" * 12}) for stage in STAGES] == 2 * [([command], set())]
    assert len((mixed.path / "commands.jsonl").read_text().splitlines()) == 4, "what is repeated is written once"
    state = read_state(mixed)
    assert state.commands()[1:] == [command]
    submitted = replace(state, submitted={"slurm": Counter({JobState.PENDING: 2, JobState.ENDED: 1})})
    assert submitted.commands()[1:] == [command], "a failed cell is not in the queue any more"
    cells = tuple(cell for cell in state.cells if cell.state not in (State.FAILED, STALE))
    assert replace(submitted, cells=cells).commands() == ["trainlarge status mixed --watch"]
    assert replace(submitted, cells=cells, submitted={"slurm": Counter({JobState.LOST: 1})}).commands() == [command]


def test_a_cell_whose_heart_beats_is_never_stale(mixed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cell_in(mixed, State.RUNNING)
    lease = Lease.acquire(folder.path)
    assert lease

    def state() -> str:
        return next(cell.state for cell in read_state(mixed).cells if cell.cell == folder.id)

    folder.write_status(Status(State.RUNNING, updated=time.time() - 1e6))
    assert state() == State.RUNNING, "a status that was not written for days is no sign of a death"
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 1e6)
    assert state() == State.RUNNING, "nor is a clock of this machine that runs ahead"
    expired = clock() - LEASE_SECONDS - 1
    os.utime(lease.path, (expired, expired))
    assert state() == STALE
    lease.renew()
    assert state() == State.RUNNING


def test_looking_leaves_the_study_as_it_was(mixed: Study) -> None:
    assert Lease.acquire(cell_in(mixed, State.RUNNING).path)
    before = {path: path.read_bytes() for path in mixed.path.rglob("*") if path.is_file()}
    read_state(mixed)
    assert before == {path: path.read_bytes() for path in mixed.path.rglob("*") if path.is_file()}


def test_json_is_one_line_that_tells_the_same(mixed: Study, capfd: pytest.CaptureFixture[str]) -> None:
    assert Lease.acquire(cell_in(mixed, State.RUNNING).path)
    assert main(["status", "mixed", "--json"]) == 0
    [line] = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["stages"]["train"] == {
        "cells": 6, "missing": 0, "queued": 1, "running": 1, "done": 2, "failed": 1, "preempted": 1, "stale": 0,
        "diverged": 1,
    }  # fmt: skip
    [running], [failed] = found["running"], found["failed"]
    assert running["progress"] == PROGRESS and 0 <= running["heartbeat_age"] < 60
    assert failed["attempts"] == 3 and found["done"] is False and len(found["diverged"]) == 1


def test_a_record_that_is_gone_or_damaged_is_a_failure(mixed: Study) -> None:
    first, second = (folder for folder in mixed.folders("train") if folder.is_done())
    first.record_path.unlink()
    second.record_path.write_bytes(second.record_path.read_bytes().replace(b"1", b"2", 1))
    shutil.rmtree(cell_in(mixed, State.QUEUED).path)
    errors = {cell.cell: cell.error or "" for cell in read_state(mixed).those(State.FAILED)}
    assert "record.json is gone" in errors[first.id] and "record.json is damaged" in errors[second.id]
    assert errors[second.id].endswith(f"to make it again: trainlarge redo {second.id} --study mixed")
    assert first.id in text_of(mixed)


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_whole_record_stands_for_a_damaged_status(mixed: Study, damage: str) -> None:
    first, second = (folder for folder in mixed.folders("train") if folder.is_done())
    for folder in (first, second):
        status = folder.path / "status.json"
        status.write_text('{"state": "do') if damage == "truncated" else status.unlink()
    second.record_path.write_text("{")
    assert first.is_done() and first.status().state is State.DONE
    state = State.FAILED if damage == "truncated" else State.QUEUED
    assert not second.is_done() and second.status().state is state


def test_watching_ends_when_all_is_done(mixed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        for folder in mixed.folders("train"):
            folder.write_record_data(made.bare_record(folder.id))
            folder.write_status(Status(State.DONE))

    monkeypatch.setattr(status_view.time, "sleep", sleep)
    console = Console(file=io.StringIO(), width=200)
    watch(mixed, console, as_json=False)
    assert looks == 1 and "next: trainlarge report mixed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_an_interrupt_ends_watching_quietly(mixed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status_view.time, "sleep", interrupted)
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    watch(mixed, console, as_json=False)
    assert "mixed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_study_that_is_not_there_is_named(mixed: Study, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "nowhere"]) == 2
    assert "study=nowhere is not valid: must be a study in" in capfd.readouterr().err


@pytest.mark.parametrize("columns", ["20", "0", "banana"])
def test_lines_are_whole_where_the_output_is_no_terminal(
    columns: str, mixed: Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["status", "mixed"]) == 0
    assert f"mixed: {mixed.path}" in capfd.readouterr().out.splitlines()


def test_a_dumb_terminal_gets_lines_and_no_bars(mixed: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True, width=40)
    cells = [folder.cell() for folder in mixed.folders("train")]
    plan = Plan("train", tuple(cells), (Job("train", tuple(cell.id for cell in cells), 1.0),))
    with ProgressWatcher(mixed, plan, console) as watcher:
        watcher.update(list(plan.jobs), [])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 1 and "cells; " in lines[0] and "step " in lines[0]


def test_what_goes_on_are_the_commands_whose_cells_are_not_done(mixed: Study) -> None:
    queued, failed = cell_in(mixed, State.QUEUED), cell_in(mixed, State.FAILED)
    others = [cell_in(mixed, state).id for state in (State.RUNNING, State.PREEMPTED)]
    done = next(folder.id for folder in mixed.folders("train") if folder.is_done())
    remember_command(mixed, "train", "trainlarge train -m seed=0,1", [queued.id, *others])
    remember_command(mixed, "train", "trainlarge train seed=2", [failed.id])
    remember_command(mixed, "train", "trainlarge train seed=9", [done])
    assert read_state(mixed).commands()[1:] == ["trainlarge train seed=2", "trainlarge train -m seed=0,1"]
    remember_command(mixed, "train", "trainlarge train seed=9", [done])
    assert len((mixed.path / "commands.jsonl").read_text().splitlines()) == 3
    remember_command(mixed, "train", "trainlarge train seed=9", [done, queued.id])
    commands = ["trainlarge train seed=9", "trainlarge train seed=2", "trainlarge train -m seed=0,1"]
    assert read_state(mixed).commands()[1:] == commands, "the sweep file of a command may have more cells than before"


def test_a_cell_of_which_no_command_is_known_is_made_again_by_its_id(mixed: Study) -> None:
    _, command = read_state(mixed).commands()
    assert command.startswith("trainlarge redo ") and command.endswith(" --study mixed")


def test_what_is_done_is_not_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    study = Study(tmp_path / "quickstart")
    study.path.mkdir()
    assert read_state(study).commands() == ["trainlarge run quickstart"], "no cells yet"
    folder = made.make_train_cell(study, SHAPE, 7.5)
    assert read_state(study).commands() == ["trainlarge run quickstart"], "its sweeps have another stage"
    study.path.rename(tmp_path / "other")
    other = Study(tmp_path / "other")
    assert read_state(other).commands() == ["trainlarge report other"]
    assert main(["report", "other"]) == 0
    assert read_state(other).commands() == []
    capfd.readouterr()
    assert main(["status", "other"]) == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("report: ")
    record = other.folder("train", folder.id).record_path
    later = time.time() + 60
    os.utime(record, (later, later))
    assert read_state(other).commands() == ["trainlarge report other"], "results are newer than the report"
