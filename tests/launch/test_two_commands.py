"""Commands that run on one study at the same time: they share its cells, and each ends when all are done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import made
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.store import CellFolder, Study
from waiting import wait_for

COMMAND = [sys.executable, "-m", "trainlarge.cli", "train", "-m"]


def start(overrides: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *overrides], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=150)
    return process.returncode, printed


def training(study: Study) -> list[CellFolder]:
    return [folder for folder in study.folders("train") if (folder.status().progress.step or 0) > 10]


@pytest.mark.long
def test_a_command_does_the_rest_and_waits_for_what_another_process_runs(
    study: Study, tiny: Callable[..., TrainConfig], tiny_overrides: list[str]
) -> None:
    plan = make_plan(study, "train", make_cells("train", [tiny("seed=0")]))
    other = RunningJob.claim(study, "train", list(plan.jobs[0].cell_ids))
    [held] = other.cells
    with other.running():
        command = start([*tiny_overrides, "seed=0,1"])
        wait_for(lambda: any(folder.is_done() for folder in study.folders("train")))
        time.sleep(2)
        assert command.poll() is None, "it has nothing left to run, and waits"
        other.finish(held.id, made.any_record(held.id))
    status, printed = end(command)
    assert status == 0 and "waiting for 1 cell that another process runs" in printed
    assert [folder.status().attempts for folder in study.folders("train")] == [1, 1]


@pytest.mark.long
def test_a_cell_of_a_command_that_was_killed_is_taken_over(
    study: Study, tiny_overrides: list[str], tmp_path: Path
) -> None:
    overrides = [*tiny_overrides, "clock=real", "budget=5 s", "impl.threads=1"]
    first = start(overrides)
    wait_for(lambda: training(study))
    [folder] = training(study)
    [lease] = (folder.path / "lease").glob("*.json")
    # Held still, so that it cannot end before the second command has seen it; its heart beats on by our hand.
    os.kill(json.loads(lease.read_text())["pid"], signal.SIGSTOP)
    log = tmp_path / "second"
    with log.open("w") as output:
        second = subprocess.Popen([*COMMAND, *overrides], stdout=output, stderr=subprocess.STDOUT)

    def is_waited_for() -> bool:
        os.utime(lease)
        return "waiting for 1 cell that another process runs" in log.read_text()

    wait_for(is_waited_for)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert second.wait(timeout=150) == 0, log.read_text()
    assert folder.is_done() and folder.status().attempts == 2


@pytest.mark.long
def test_without_waiting_it_says_what_another_process_holds(
    study: Study, tiny: Callable[..., TrainConfig], tiny_overrides: list[str]
) -> None:
    plan = make_plan(study, "train", make_cells("train", [tiny("seed=0")]))
    other = RunningJob.claim(study, "train", list(plan.jobs[0].cell_ids))
    [held] = other.cells
    with other.running():
        status, printed = end(start([*tiny_overrides, "seed=0,1", "--no-wait"]))
    assert status == 1 and f"running {held.id}: held by another process, which was not waited for" in printed
    assert sum(folder.is_done() for folder in study.folders("train")) == 1
