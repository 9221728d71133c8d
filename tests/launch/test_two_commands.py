"""Commands that run on one study at the same time: they share its cells, and each ends when all are done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from trainlarge.launch.job import RunningJob
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.store import CellFolder, Study

COMMAND = [sys.executable, "-m", "trainlarge.cli", "train", "-m"]


def start(overrides: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *overrides], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=150)
    return process.returncode, printed


def wait_for(condition: Callable[[], Any], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def training(study: Study) -> list[CellFolder]:
    return [folder for folder in study.folders("train") if folder.status().progress.get("step", 0) > 10]


def test_a_second_command_waits_for_what_the_first_runs_and_both_end_well(
    study: Study, tiny_overrides: list[str]
) -> None:
    overrides = [*tiny_overrides, "budget=3000 steps", "seed=0,1"]
    first = start(overrides)
    wait_for(lambda: training(study))
    second = start(overrides)
    told = [end(first), end(second)]
    assert [status for status, _ in told] == [0, 0], told
    folders = list(study.folders("train"))
    assert len(folders) == 2 and all(folder.is_done() and folder.status().attempts == 1 for folder in folders)
    starts = sorted(folder.record()["provenance"]["started"] for folder in folders)
    ends = sorted(folder.record()["provenance"]["ended"] for folder in folders)
    assert starts[1] < ends[0], "the second command took what the first had not begun"


def test_a_cell_of_a_command_that_was_killed_is_taken_over(study: Study, tiny_overrides: list[str]) -> None:
    overrides = [*tiny_overrides, "budget=3000 steps"]
    first = start(overrides)
    wait_for(lambda: training(study))
    second = start(overrides)
    [folder] = training(study)
    time.sleep(1)
    os.killpg(first.pid, signal.SIGKILL)
    # The job's process belongs to a fork server, which outlives the command.
    lease = max((folder.path / "lease").glob("*.json"))
    os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)
    first.communicate()
    status, printed = end(second)
    assert status == 0 and folder.is_done() and folder.status().attempts == 2, printed


def test_without_waiting_it_says_what_another_process_holds(
    study: Study, tiny: Callable[..., dict[str, Any]], tiny_overrides: list[str]
) -> None:
    plan = make_plan(study, "train", make_cells("train", [tiny("seed=0")]))
    [held] = RunningJob.claim(study, "train", list(plan.jobs[0].cell_ids)).cells
    status, printed = end(start([*tiny_overrides, "seed=0,1", "--no-wait"]))
    assert status == 1 and f"running {held.id}: held by another process, which was not waited for" in printed
    assert sum(folder.is_done() for folder in study.folders("train")) == 1
