"""Two copies of a job, as a node leaves them that its cluster has lost sight of: only one of them writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import made
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.launch import early_stop
from trainlarge.launch.job import LostLeaseError, RunningJob
from trainlarge.launch.slurm import task as slurm_task
from trainlarge.launch.slurm.submission import Submission
from trainlarge.launch.slurm.task import run_task
from trainlarge.sweep.lease import LEASE_SECONDS, is_held
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study


@pytest.fixture
def folder(study: Study, tiny: Callable[..., TrainConfig]) -> CellFolder:
    [cell] = make_cells("train", [tiny()])
    make_plan(study, "train", [cell])
    return study.folder("train", cell.id)


def claim_elsewhere(study: Study, folder: CellFolder) -> RunningJob:
    """Claim the cell as a process of another machine, of which only the heartbeat tells."""
    job = RunningJob.claim(study, "train", [folder.id])
    path = newest_lease(folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), "space": "another machine"}))
    return job


def newest_lease(folder: CellFolder) -> Path:
    return max((folder.path / "lease").glob("*.json"))


def fall_silent(folder: CellFolder) -> None:
    path = newest_lease(folder)
    before = path.stat().st_mtime - LEASE_SECONDS - 1
    os.utime(path, (before, before))


def test_a_copy_does_not_run_while_the_holder_beats(study: Study, folder: CellFolder) -> None:
    assert claim_elsewhere(study, folder).cells
    assert not RunningJob.claim(study, "train", [folder.id]).cells
    assert folder.status().attempts == 1


def test_a_silent_holder_is_replaced_and_cannot_write_any_more(study: Study, folder: CellFolder) -> None:
    old = claim_elsewhere(study, folder)
    fall_silent(folder)
    new = RunningJob.claim(study, "train", [folder.id])
    assert new.cells
    with pytest.raises(LostLeaseError):
        old.finish(folder.id, made.any_record(folder.id, by="old"))
    assert not folder.record_path.exists() and folder.status().state is State.RUNNING
    new.finish(folder.id, made.any_record(folder.id, by="new"))
    with pytest.raises(LostLeaseError), old.running():
        old.finish(folder.id, made.any_record(folder.id, by="old"))
    assert folder.record_data()["by"] == "new" and folder.is_done(), "nor does its end change the state"


@pytest.fixture
def task(study: Study, folder: CellFolder, monkeypatch: pytest.MonkeyPatch) -> Submission:
    """A submission of the one cell, inside an array task whose waits are short."""
    monkeypatch.setattr(slurm_task, "HOLDER_SECONDS", 0.2)
    monkeypatch.setattr(slurm_task, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(early_stop.signal, "signal", lambda number, handler: None)
    for name, value in {"JOB_ID": "7", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return Submission.new(study, "train", [(folder.id,)], SlurmConfig(max_requeues=2), []).write()


def test_a_task_leaves_the_cells_of_a_living_holder_alone(study: Study, folder: CellFolder, task: Submission) -> None:
    claim_elsewhere(study, folder)
    assert run_task(task, 0) == 0
    assert folder.status().attempts == 1 and folder.status().state is State.RUNNING


def test_a_restarted_task_comes_back_to_see_after_its_older_copy(
    study: Study, folder: CellFolder, task: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_elsewhere(study, folder)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm_task, "own_state", lambda number: "RUNNING")
    monkeypatch.setattr(slurm_task, "slurm_command", lambda *command: asked.append(command))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert run_task(task, 0) == 0 and asked == [("scontrol", "requeue", "7_0")]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert run_task(task, 0) == 1 and len(asked) == 1, "no more than launcher.max_requeues"
    assert folder.status().state is State.RUNNING, "a cell that lives is not given up"


def test_a_copy_that_finishes_at_the_last_moment_is_not_given_up(
    study: Study, folder: CellFolder, task: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = claim_elsewhere(study, folder)

    def finish_meanwhile(number: str) -> str:
        older.finish(folder.id, made.any_record(folder.id))
        return "RUNNING"

    monkeypatch.setattr(slurm_task, "own_state", finish_meanwhile)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    run_task(task, 0)
    assert folder.is_done() and folder.status().error is None
    assert not is_held(folder.path)


@pytest.mark.parametrize(
    ("answers", "requeues"),
    [(["RUNNING"], 1), (["", "", "RUNNING"], 1), (["CANCELLED"], 0), (["", "", "COMPLETING"], 0), ([], 1)],
    ids=["running", "running after a silence", "cancelled", "ending after a silence", "silent to the end"],
)
def test_silence_of_slurm_is_not_taken_for_the_end_of_the_job(
    study: Study,
    folder: CellFolder,
    task: Submission,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[str],
    requeues: int,
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm_task, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(slurm_task, "run_job", lambda *arguments, **named: 0)
    monkeypatch.setattr(slurm_task, "own_state", lambda number: answers.pop(0) if answers else "")
    monkeypatch.setattr(slurm_task, "slurm_command", lambda *command: asked.append(command))
    assert run_task(task, 0) == 0 and asked == [("scontrol", "requeue", "7_0")] * requeues
