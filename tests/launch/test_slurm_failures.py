"""Failures of a submission, counted by its array tasks: real task processes, with a SLURM that only answers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trainlarge.commands.status import read_state
from trainlarge.config.launcher import LauncherConfig, SlurmConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.slurm import failures as slurm_failures
from trainlarge.launch.slurm.failures import Failures
from trainlarge.launch.slurm.submission import Submission
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

pytestmark = pytest.mark.usefixtures("unforeseen")

BROKEN = "data.vocab_size=100000"


class FakeSlurm:
    """Commands on the path: squeue says that the job runs, scontrol notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._install("squeue", "echo RUNNING")
        self._install("scontrol", f'echo "$@" >> {folder}/asked')

    def asked(self) -> list[str]:
        notes = self.folder / "asked"
        return notes.read_text().splitlines() if notes.exists() else []

    def run_task(self, submission: Submission, index: int, restarts: int = 0) -> int:
        environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            **{"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)},
            "SLURM_RESTART_COUNT": str(restarts),
        }
        command = [sys.executable, "-m", "trainlarge.launch.slurm.task", str(submission.path), "0"]
        return subprocess.run(command, env=environment, capture_output=True, timeout=120).returncode

    def _install(self, name: str, line: str) -> None:
        program = self.folder / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin")


@pytest.fixture
def submit(study: Study, tiny: Callable[..., TrainConfig]) -> Callable[..., Submission]:
    """Freezes a broken cell for each seed, and writes the submission that would run them."""

    def submitted(seeds: int, *overrides: str) -> Submission:
        configs = [tiny("launcher=slurm", BROKEN, f"seed={seed}", *overrides) for seed in range(seeds)]
        plan = make_plan(study, "train", make_cells("train", configs))
        jobs = [job.cell_ids for job in plan.jobs]
        launcher = configs[0].launcher
        assert isinstance(launcher, SlurmConfig)
        return Submission.new(study, "train", jobs, launcher, []).write()

    return submitted


@pytest.mark.long
def test_a_failed_cell_goes_back_into_the_queue_as_often_as_asked(
    study: Study, slurm: FakeSlurm, submit: Callable[..., Submission]
) -> None:
    submission = submit(1, "launcher.retries=1")
    [folder] = study.folders("train")
    assert slurm.run_task(submission, 0) == 0 and slurm.asked() == ["requeue 7_0"]
    assert (folder.status().attempts, folder.status().retries) == (1, 0)
    assert slurm.run_task(submission, 0, restarts=1) == 1 and len(slurm.asked()) == 1
    assert folder.status().state is State.FAILED
    assert (folder.status().attempts, folder.status().retries) == (2, 1)


@pytest.mark.long
def test_after_so_many_failures_a_task_leaves_its_cells_to_a_later_command(
    study: Study, slurm: FakeSlurm, submit: Callable[..., Submission]
) -> None:
    submission = submit(2, "launcher.max_failures=1")
    failed, left = (study.folder("train", cell_ids[0]) for cell_ids in submission.jobs)
    assert slurm.run_task(submission, 0) == 1 and failed.status().state is State.FAILED
    assert slurm.run_task(submission, 1) == 0 and slurm.asked() == []
    assert (left.status().state, left.status().attempts) == (State.QUEUED, 0)
    why = "not run: 1 cell has failed, and launcher.max_failures=1"
    assert left.status().error == why and read_state(study).not_run() == {why: 1}


class Stop:
    """Stands where a running job listens."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.reason = ""

    def request(self, reason: str) -> None:
        self.reason = reason
        self.asked.set()


def test_a_running_task_hears_of_a_failure_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_failures, "LOOK_SECONDS", 0.02)
    failures, stop = Failures(tmp_path / "noted", LauncherConfig(fail_fast=True)), Stop()
    with failures.watched(stop):  # type: ignore[arg-type]
        assert not stop.asked.wait(0.2)
        failures.add(["0123456789ab"])
        assert stop.asked.wait(10) and "launcher.fail_fast" in stop.reason


def test_failures_are_counted_cell_by_cell(tmp_path: Path) -> None:
    failures = Failures(tmp_path / "noted", LauncherConfig(retries=1, max_failures=2))
    assert failures.stop_reason() is None
    assert failures.add(["a", "b"]) == {"a", "b"} and failures.stop_reason() is None
    assert failures.add(["a"]) == set() and failures.stop_reason() is None, "b may still do it"
    assert failures.add(["b"]) == set() and "2 cells have failed" in (failures.stop_reason() or "")
