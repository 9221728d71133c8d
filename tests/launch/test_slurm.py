"""Jobs on a real SLURM of four virtual nodes, started for these tests."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from real_slurm import SLURM, slurm
from trainlarge.cli import main
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.engine import run_cells
from trainlarge.launch.launcher import JobState
from trainlarge.launch.slurm.state import SlurmJob, slurm_jobs
from trainlarge.launch.slurm.submission import submissions
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study
from waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("unforeseen")]

Submit = Callable[..., list[CellFolder]]
Overrides = tuple[str, ...]
ENDLESS: Overrides = ("budget=100000000 steps",)
MOMENT: Overrides = ("budget=40 steps",)
# Seconds and not steps: long enough to be interrupted however fast the machine.
WHILE: Overrides = ("clock=real", "budget=8 s")


@pytest.fixture
def submit(cluster: Path, study: Study, tiny: Callable[..., TrainConfig]) -> Iterator[Submit]:
    """Submits cells, one job each: ``submit(["seed=0", ...], partition="low")``; cancels what is left in the end."""

    def submitted(cells: list[str], budget: Overrides = MOMENT, **launcher: Any) -> list[CellFolder]:
        configs = [tiny("launcher=slurm", *budget, cell) for cell in cells]
        configs = [replace(config, launcher=replace(config.launcher, **launcher)) for config in configs]
        outcome = run_cells("train", configs, Console(file=io.StringIO()))
        assert outcome.is_submitted
        return [study.folder("train", cell.id) for cell in outcome.plan.cells]

    yield submitted
    slurm("scancel", "--user", str(os.getuid()))
    wait_for(lambda: not slurm("squeue", "-h"))


def job_of(folder: CellFolder, study: Study) -> SlurmJob:
    return next(job for job in slurm_jobs(study) if folder.id in job.cell_ids)


def task(folder: CellFolder, study: Study) -> str:
    job = job_of(folder, study)
    return f"{job.array}_{job.index}"


def slurm_word(folder: CellFolder, study: Study) -> str:
    return job_of(folder, study).slurm_says.partition(" ")[0]


def trains(folder: CellFolder) -> bool:
    return folder.status().state is State.RUNNING and (folder.status().progress.step or 0) > 10


def is_claimable(folder: CellFolder) -> bool:
    return not folder.is_done() and not is_held(folder.path)


both = pytest.mark.parametrize("cluster", ["plain", "accounting"], indirect=True)
both_in_the_long_tests = pytest.mark.parametrize(
    "cluster", ["plain", pytest.param("accounting", marks=pytest.mark.long)], indirect=True
)


@both_in_the_long_tests
def test_a_sweep_over_three_nodes(
    cluster: Path, study: Study, submit: Submit, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "-m", *tiny_overrides, "launcher=slurm", "launcher.sbatch=[--exclusive]", "seed=0,1,2"]
    assert main(command) == 0
    [submission] = submissions(study)
    printed = capfd.readouterr().out
    assert f"array {submission.arrays[0].number}: 3 jobs" in printed and "trainlarge status tiny" in printed
    assert all(folder.status().state is not State.DONE for folder in study.folders("train")), "it did not wait"
    assert main(command) == 0 and len(submissions(study)) == 1, "jobs on their way are not submitted again"
    wait_for(lambda: all(folder.is_done() for folder in study.folders("train")))
    assert {folder.status().attempts for folder in study.folders("train")} == {1}
    wait_for(lambda: not slurm("squeue", "-h"))
    assert {job.slurm_says for job in slurm_jobs(study)} == {"COMPLETED"}
    assert (
        len(set(slurm("squeue", "-h", "-r", "-t", "all", "-j", str(submission.arrays[0].number), "-o", "%N").split()))
        == 3
    )
    capfd.readouterr()
    assert main(command) == 0 and "3 cells, 3 done, 0 jobs" in capfd.readouterr().out


@both_in_the_long_tests
def test_a_job_that_raises_is_failed_to_slurm_too(
    request: pytest.FixtureRequest, cluster: Path, study: Study, submit: Submit
) -> None:
    [bad] = submit(["data.vocab_size=100000"])
    wait_for(lambda: slurm_word(bad, study) == "FAILED")
    assert bad.status().state is State.FAILED and "data.vocab_size=100000" in (bad.status().error or "")
    assert job_of(bad, study).state is JobState.ENDED and is_claimable(bad)
    if "accounting" in request.node.name:
        wait_for(lambda: "FAILED|1:0" in slurm("sacct", "-X", "-n", "-P", "-o", "State,ExitCode"), seconds=20)


@both_in_the_long_tests
def test_cancelled_jobs_are_lost_within_a_minute_and_claimable(cluster: Path, study: Study, submit: Submit) -> None:
    running, pending = submit(["seed=0", "seed=1"], ENDLESS, array_parallelism=1)
    wait_for(lambda: trains(running))
    if slurm_word(running, study) == "PENDING":
        running, pending = pending, running
    assert job_of(pending, study).state is JobState.PENDING
    slurm("scancel", task(pending, study))
    wait_for(lambda: job_of(pending, study).state is JobState.LOST, seconds=60)
    assert pending.status().state is State.QUEUED and is_claimable(pending)
    slurm("scancel", task(running, study))
    wait_for(lambda: job_of(running, study).state is JobState.LOST, seconds=60)
    assert running.status().state is State.PREEMPTED and is_claimable(running), "it had the time to say so"
    assert "PENDING" not in slurm("squeue", "-h", "-o", "%T"), "a cancelled job does not requeue itself"
    submit(["seed=0", "seed=1"], ENDLESS, sbatch=["--hold"])
    assert [job.slurm_says for job in slurm_jobs(study)] == ["PENDING (JobHeldUser)"] * 2, (
        "lost ones are submitted again"
    )


@pytest.mark.long
def test_a_requeued_job_runs_again(cluster: Path, study: Study, submit: Submit) -> None:
    [folder] = submit(["seed=0"], WHILE)
    wait_for(lambda: trains(folder))
    slurm("scontrol", "requeue", task(folder, study))
    wait_for(lambda: folder.is_done())
    assert folder.status().attempts == 2
    wait_for(lambda: slurm_word(folder, study) == "COMPLETED")


@pytest.mark.long
def test_the_signal_before_the_time_limit_puts_a_job_back_into_the_queue(
    cluster: Path, study: Study, submit: Submit
) -> None:
    [folder] = submit(["seed=0"], WHILE)
    wait_for(lambda: trains(folder))
    slurm("scancel", "--batch", "--signal=USR1", task(folder, study))
    wait_for(lambda: folder.status().state is State.PREEMPTED, seconds=20)
    assert job_of(folder, study).state in (JobState.PENDING, JobState.RUNNING), "not lost"
    wait_for(lambda: folder.is_done())
    assert folder.status().attempts == 2


@pytest.mark.long
def test_a_preempted_job_comes_back(cluster: Path, study: Study, submit: Submit) -> None:
    [folder] = submit(["seed=0"], WHILE, partition="low", sbatch=["-w n1", "--exclusive"])
    wait_for(lambda: trains(folder))
    slurm("sbatch", "-p", "high", "-w", "n1", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 2")
    wait_for(lambda: folder.status().state is State.PREEMPTED, seconds=30)
    wait_for(lambda: folder.is_done())
    assert folder.status().attempts == 2


@pytest.mark.long
def test_a_job_that_comes_back_too_often_is_given_up(cluster: Path, study: Study, submit: Submit) -> None:
    [folder] = submit(["seed=0"], ENDLESS, max_requeues=0)
    wait_for(lambda: trains(folder))
    slurm("scancel", "--batch", "--signal=USR1", task(folder, study))
    wait_for(lambda: slurm_word(folder, study) == "FAILED")
    assert folder.status().state is State.FAILED and "launcher.max_requeues" in (folder.status().error or "")
    assert is_claimable(folder)


@pytest.mark.long
def test_an_array_larger_than_allowed_is_split(cluster: Path, study: Study, submit: Submit) -> None:
    folders = submit([f"seed={seed}" for seed in range(5)], max_array_size=2, sbatch=["--hold"])
    [submission] = submissions(study)
    assert [(array.first, array.count) for array in submission.arrays] == [(0, 2), (2, 2), (4, 1)]
    assert {job.slurm_says for job in slurm_jobs(study)} == {"PENDING (JobHeldUser)"}
    fourth = next(folder for folder in folders if submission.jobs[3] == (folder.id,))
    slurm("scontrol", "release", task(fourth, study))
    wait_for(lambda: fourth.is_done())
    assert sum(folder.is_done() for folder in folders) == 1


def test_a_plan_leaves_out_what_is_on_its_way(
    cluster: Path, study: Study, submit: Submit, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    submit(["seed=0", "seed=1"], sbatch=["--hold"])
    capfd.readouterr()
    assert main(["plan", "train", *tiny_overrides, "launcher=slurm", "seed=0,1,2,3,4", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["on_their_way"], [array[1] for array in plan["arrays"]]) == (2, ["--array=0-2"])


def test_an_enclosing_job_does_not_leak_and_a_job_that_dies_at_once_is_lost(
    cluster: Path, study: Study, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {
        "SBATCH_PARTITION": "nowhere",
        "SLURM_MEM_PER_CPU": "123",
        "SLURM_MEM_PER_NODE": "456",
        "SRUN_DEBUG": "3",
    }
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    [folder] = submit(["seed=0"], setup=[f"env > {tmp_path}/environment", "echo no such module", "exit 3"])
    monkeypatch.undo()
    monkeypatch.setenv("SLURM_CONF", str(cluster / "etc" / "slurm.conf"))
    wait_for(lambda: job_of(folder, study).state is JobState.LOST, seconds=60)
    seen = set((tmp_path / "environment").read_text().splitlines())
    assert not seen & {f"{name}={value}" for name, value in foreign.items()} and "SLURM_JOB_PARTITION=main" in seen
    [log] = submissions(study)[0].logs.iterdir()
    assert "no such module" in log.read_text() and folder.status().state is State.QUEUED


def test_a_task_imports_nothing_from_the_folder_where_it_was_submitted(
    study: Study, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", ":")
    for name in ("random", "queue", "tokenizers", "torch", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('foreign code')")
    [folder] = submit(["seed=0"])
    wait_for(lambda: folder.is_done(), seconds=60)


def test_two_commands_at_once_submit_each_job_once(
    cluster: Path, study: Study, submit: Submit, tiny_overrides: list[str]
) -> None:
    command = [sys.executable, "-m", "trainlarge.cli", "train", "-m", *tiny_overrides, "seed=0,1,2"]
    command += ["launcher=slurm", "launcher.sbatch=[--hold]"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    assert len(submissions(study)) == 1 and len(slurm("squeue", "-h", "-r").splitlines()) == 3


@pytest.mark.parametrize("wrong", ["partition=nowhere", "memory=9999T", "gpus=7", "sbatch=[--bogus]", "cpus=999"])
def test_what_slurm_refuses_is_one_line_and_nothing_is_frozen(
    wrong: str, cluster: Path, study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *tiny_overrides, "launcher=slurm", f"launcher.{wrong}"]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: launcher") and "which says: " in line and not study.path.exists()


@pytest.mark.long
def test_a_job_that_times_out_goes_back_into_the_queue(cluster: Path, study: Study, submit: Submit) -> None:
    [folder] = submit(["seed=0"], ENDLESS, partition="short", time="1 min", signal_lead=20)
    wait_for(lambda: trains(folder) and folder.status().attempts == 1)
    wait_for(lambda: trains(folder) and folder.status().attempts == 2, seconds=240)
    assert job_of(folder, study).state is JobState.RUNNING


@pytest.mark.long
@both
def test_a_node_that_dies(cluster: Path, study: Study, submit: Submit) -> None:
    [folder] = submit(["seed=0"], WHILE)
    wait_for(lambda: trains(folder))
    node = slurm("squeue", "-h", "-o", "%N")
    subprocess.run([SLURM / "down", "-q", "--node", node, cluster], check=True, timeout=60)
    assert not folder.is_done()
    wait_for(lambda: folder.is_done())
    assert folder.status().attempts == 2
    subprocess.run([SLURM / "up", "-q", cluster], check=True, timeout=120)


@pytest.mark.long
@pytest.mark.timeout(700)
def test_a_node_out_of_sight_and_its_second_copy_run_a_cell_once(cluster: Path, study: Study, submit: Submit) -> None:
    [folder] = submit(["seed=0"], ("clock=real", "budget=75 s"))
    wait_for(lambda: trains(folder))
    node, number = slurm("squeue", "-h", "-o", "%N %A").split()
    os.kill(int((cluster / "run" / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
    wait_for(
        lambda: (
            "Restarts=1" in slurm("scontrol", "show", "job", number)
            and "JobState=RUNNING" in slurm("scontrol", "show", "job", number)
        )
    )
    assert trains(folder), "the old copy runs on"
    wait_for(lambda: folder.is_done(), seconds=300)
    assert folder.status().attempts == 1
    wait_for(lambda: not slurm("squeue", "-h"))
    subprocess.run([SLURM / "up", "-q", cluster], check=True, timeout=120)


BROKEN = "data.vocab_size=100000"


@pytest.mark.long
def test_a_failed_cell_is_tried_again_by_slurm(cluster: Path, study: Study, submit: Submit) -> None:
    [folder] = submit([BROKEN], retries=1)
    wait_for(lambda: slurm_word(folder, study) == "FAILED")
    assert (folder.status().attempts, folder.status().retries) == (2, 1)


@pytest.mark.long
def test_after_a_failure_pending_jobs_are_not_run_and_running_ones_stop(
    cluster: Path, study: Study, submit: Submit, tiny: Callable[..., TrainConfig]
) -> None:
    [endless] = make_cells("train", [tiny(*ENDLESS, "launcher=slurm")])
    configs = [
        tiny(*ENDLESS, "launcher=slurm"),
        tiny(*MOMENT, BROKEN, "launcher=slurm"),
        tiny("seed=1", "launcher=slurm"),
    ]
    configs = [replace(each, launcher=replace(each.launcher, fail_fast=True, array_parallelism=2)) for each in configs]
    run_cells("train", configs, Console(file=io.StringIO()))
    running = study.folder("train", endless.id)
    wait_for(lambda: running.status().state is State.PREEMPTED and not slurm("squeue", "-h"))
    states = sorted(folder.status().state for folder in study.folders("train"))
    assert State.FAILED in states and states.count(State.DONE) <= 1, states
    assert running.status().attempts == 1 and is_claimable(running)
    assert "launcher.fail_fast" in (running.status().error or "")
