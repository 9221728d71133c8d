"""Retries, a limit of failures, and stopping at the first: with real processes, through the command line."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from trainlarge.cli import main
from trainlarge.commands.launch_flags import with_keys
from trainlarge.config.launcher import LauncherConfig
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.launch.engine import CellsFailedError, report_failures, run_cells
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

pytestmark = pytest.mark.usefixtures("unforeseen")

Tiny = Callable[..., TrainConfig]
BROKEN = "data.vocab_size=100000"
"""More entries than the text can give: fails in the job's own process."""
ENDLESS = "budget=100000000 steps"


def run(configs: list[StageConfig]) -> list[str]:
    """Run cells of which some will fail; the last lines of the command."""
    console = Console(file=io.StringIO(), width=300)
    with pytest.raises(CellsFailedError) as failure:
        run_cells("train", configs, console)
    report_failures(failure.value.outcome, console)
    return console.file.getvalue().strip().splitlines()  # type: ignore[attr-defined, no-any-return]


def folders_of(study: Study, configs: list[StageConfig]) -> list[CellFolder]:
    return [study.folder("train", cell.id) for cell in make_cells("train", configs)]


def kill_holder(folder: CellFolder) -> None:
    """Kill, with -9, the process that trains the cell, once it does."""
    deadline = time.monotonic() + 200
    while (folder.status().progress.step or 0) < 10:
        assert time.monotonic() < deadline, "it never trained"
        time.sleep(0.02)
    lease = max((folder.path / "lease").glob("*.json"))
    os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)


def test_a_killed_cell_is_tried_again_and_then_done(tiny: Tiny, study: Study) -> None:
    config = tiny("clock=real", "budget=5 s", "impl.threads=1", "launcher.retries=1")
    [folder] = folders_of(study, [config])
    killer = threading.Thread(target=kill_holder, args=[folder])
    killer.start()
    outcome = run_cells("train", [config], Console(file=io.StringIO()))
    killer.join()
    assert not outcome.failed and folder.is_done()
    assert (folder.status().attempts, folder.status().retries) == (2, 1)


def test_a_cell_that_goes_on_failing_is_tried_as_often_as_asked(tiny: Tiny, study: Study) -> None:
    config = tiny(BROKEN, "launcher.retries=2")
    lines = run([config])
    [folder] = folders_of(study, [config])
    assert folder.status().state is State.FAILED
    assert (folder.status().attempts, folder.status().retries) == (3, 2)
    assert f"failed {folder.id}" in lines[-2] and "(attempts 3, retries 2)" in lines[-2]


def test_after_so_many_failures_no_job_is_started(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "-m", *tiny_overrides, BROKEN, "seed=0,1,2,3", "--max-failures", "2"]
    assert main(command) == 1
    *failed, not_run, see = capfd.readouterr().out.strip().splitlines()[-4:]
    assert all(line.startswith("failed ") for line in failed)
    assert not_run == "not run: 2 cells: 2 cells have failed, and launcher.max_failures=2"
    assert see.startswith("see why: trainlarge show ")
    states = [folder.status().state for folder in study.folders("train")]
    assert sorted(states) == [State.FAILED, State.FAILED, State.QUEUED, State.QUEUED]


def test_the_first_failure_stops_the_others_with_their_states_saved(tiny: Tiny, study: Study) -> None:
    shared = ["workers=2", "launcher.fail_fast=true"]
    endless, broken = tiny(ENDLESS, *shared), tiny(BROKEN, "seed=1", "budget=900000 steps", *shared)
    waiting = tiny("seed=2", *shared)
    running, failed, queued = folders_of(study, [endless, broken, waiting])
    lines = run([endless, broken, waiting])
    assert failed.status().state is State.FAILED and queued.status().state is State.QUEUED
    assert running.status().state is State.PREEMPTED, running.status()
    assert any(line.startswith(f"preempted {running.id}: stopped by") for line in lines)
    assert lines[-2] == "not run: 1 cell: 1 cell has failed, and launcher.fail_fast stops all others"


def test_run_does_not_go_on_to_the_next_stage(
    study: Study,
    tiny_overrides: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "sweeps" / "tiny").mkdir(parents=True)
    for stage, more in (("train", ""), ("compress", "checkpoint: every\n")):
        (tmp_path / "sweeps" / "tiny" / f"{stage}.yaml").write_text(f"# @package _global_\nstudy: tiny\n{more}")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "tiny", "--fail-fast", *tiny_overrides, BROKEN]) == 1
    last = capfd.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("not run: what comes after train: 1 cell has failed")


def test_the_policy_is_no_part_of_a_cell(tiny: Tiny) -> None:
    policy = ("launcher.retries=3", "launcher.max_failures=2", "launcher.fail_fast=true", "launcher.wait=false")
    assert make_cells("train", [tiny(*policy)]) == make_cells("train", [tiny()])


@pytest.mark.parametrize(
    ("config", "failed", "stops"),
    [
        (LauncherConfig(), 100, False),
        (LauncherConfig(max_failures=2), 1, False),
        (LauncherConfig(max_failures=2), 2, True),
        (LauncherConfig(fail_fast=True), 0, False),
        (LauncherConfig(fail_fast=True, max_failures=9), 1, True),
    ],
)
def test_when_failures_stop_a_command(config: LauncherConfig, failed: int, stops: bool) -> None:
    assert (config.stop_reason(failed) is not None) == stops


def test_flags_stand_for_keys_wherever_they_stand() -> None:
    given = [
        "-m",
        "--retries",
        "2",
        "seed=0,1",
        "--max-failures=3",
        "--fail-fast",
        "budget=[1 steps, 2 steps]",
        "--no-wait",
    ]
    assert with_keys(given) == [
        "-m", "seed=0,1", "budget=[1 steps, 2 steps]", "launcher.retries=2", "launcher.max_failures=3",
        "launcher.fail_fast=true", "launcher.wait=false",
    ]  # fmt: skip
    assert with_keys(["--cfg", "job", "--retr", "x"]) == ["--cfg", "job", "--retr", "x"], "nothing is guessed"
