"""Jobs that hang or are stopped, in real processes: the command says so, and their cells run again."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

import hanging
from trainlarge.commands.status import read_state
from trainlarge.commands.status_view import view
from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.engine import CellsFailedError, run_cells
from trainlarge.launch.hang import SignsOfWork, hang_in_words, watched
from trainlarge.launch.job import RunningJob
from trainlarge.launch.local import processes
from trainlarge.launch.slurm.submission import Submission
from trainlarge.sweep.lease import LEASE_SECONDS
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study
from waiting import holder_of, wait_for

Tiny = Callable[..., TrainConfig]
SOON = "launcher.hang_seconds=4"
"""Long enough for a machine that other tests use too."""
SAID = r"no progress for 4 s \(process (\d+) on \S+\): the job of cell (\w+) was ended, and its cells run again"


def run(config: TrainConfig) -> str:
    """Run a cell; what the command printed."""
    console = Console(file=io.StringIO(), width=200)
    run_cells("train", [config], console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def folder_of(study: Study, config: TrainConfig) -> CellFolder:
    [cell] = make_cells("train", [config])
    return study.folder("train", cell.id)


@pytest.mark.parametrize("hang", [hanging.waits_for_ever, hanging.lets_no_thread_run])
def test_a_job_that_hangs_is_ended_and_its_cell_runs_again(
    hang: Callable[..., None], tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_run_in_child", hang)
    config = tiny(SOON)
    said, folder = re.search(SAID, run(config)), folder_of(study, config)
    assert said and said[2] == folder.id and not psutil.pid_exists(int(said[1]))
    assert folder.is_done() and folder.status().attempts == 2 and folder.status().retries == 0
    assert folder.record_data()["resumed_at"] == [hanging.STEP], "from the state that was saved"


def test_the_log_says_where_it_hung(tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_run_in_child", hanging.always_waits_for_ever)
    config = tiny(SOON, "budget=60 steps")
    with pytest.raises(CellsFailedError):
        run(config)
    folder = folder_of(study, config)
    error = folder.status().error or ""
    assert folder.status().state is State.FAILED and folder.status().attempts == 2
    assert re.fullmatch(r"no progress for 4 s \(process \d+ on \S+\), for the second time", error)
    assert "the process ends; its threads were at:" in folder.log.read_text()
    assert "save_and_hang" in folder.log.read_text()


def test_a_long_calculation_is_no_hang(tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_run_in_child", hanging.computes_for_long)
    config = tiny("launcher.hang_seconds=2")
    assert "no progress" not in run(config)
    assert folder_of(study, config).status().attempts == 1


def test_a_job_that_is_stopped_is_killed_and_its_cell_runs_again(tiny: Tiny, study: Study) -> None:
    config = tiny(SOON, "clock=real", "budget=3 s", "impl.threads=1")
    folder = folder_of(study, config)
    hand = threading.Thread(target=lambda: os.kill(holder_of(folder), signal.SIGSTOP))
    hand.start()
    assert re.search(SAID, run(config))
    hand.join()
    assert folder.is_done() and folder.status().attempts == 2 and folder.status().retries == 0


COMMAND = [sys.executable, "-m", "trainlarge.cli", "train", "-m"]


@pytest.mark.long
def test_a_stopped_job_of_another_command_is_taken_over_and_writes_nothing_when_it_wakes(
    study: Study, tiny_overrides: list[str]
) -> None:
    overrides = [*tiny_overrides, "clock=real", "budget=5 s", "impl.threads=1"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    first = subprocess.Popen([*COMMAND, *overrides, "launcher.hang_seconds=0"], **output)  # type: ignore[call-overload]
    wait_for(lambda: any((folder.status().progress.step or 0) > 10 for folder in study.folders("train")))
    [folder] = study.folders("train")
    stopped = holder_of(folder)
    os.kill(stopped, signal.SIGSTOP)
    second = subprocess.Popen([*COMMAND, *overrides], **output)  # type: ignore[call-overload]
    printed, _ = second.communicate(timeout=LEASE_SECONDS + 120)
    assert second.returncode == 0 and f"no heartbeat from the process that ran cell {folder.id}" in printed
    record = folder.record_path.read_bytes()
    os.kill(stopped, signal.SIGCONT)
    assert first.communicate(timeout=120) and first.returncode == 0, "the cell is done"
    assert folder.record_path.read_bytes() == record and folder.status().state is State.DONE


TASK = """
import sys
from pathlib import Path
import hanging
from trainlarge.launch.slurm import task
from trainlarge.launch.slurm.submission import Submission

task.own_state = lambda number: "RUNNING"
task.slurm_command = lambda *command: Path(sys.argv[2]).write_text(" ".join(command))
submission = Submission.read(Path(sys.argv[1]))
hanging.hang_after_step(lambda: hanging.is_first(submission.study.path), hanging.wait_for_ever)
sys.exit(task.run_task(submission, 0))
"""


def test_an_array_task_that_hangs_goes_back_into_the_queue(study: Study, tiny: Tiny, tmp_path: Path) -> None:
    [cell] = make_plan(study, "train", make_cells("train", [tiny("launcher=slurm", SOON)])).cells
    submission = Submission.new(study, "train", [(cell.id,)], SlurmConfig(), []).write()
    environment = {**os.environ, "PYTHONPATH": str(Path(hanging.__file__).parent), "SLURM_JOB_ID": "7"}
    environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    command = [sys.executable, "-c", TASK, str(submission.path), str(tmp_path / "asked")]
    assert subprocess.run(command, env=environment, timeout=120).returncode == 0
    folder = study.folder("train", cell.id)
    assert (tmp_path / "asked").read_text() == "scontrol requeue 7_0"
    assert folder.status().state is State.PREEMPTED and "no progress for 4 s" in (folder.status().error or "")
    assert subprocess.run(command, env=environment, timeout=120).returncode == 0 and folder.is_done()


def test_status_says_which_process_makes_no_progress(study: Study, tiny: Tiny) -> None:
    [cell] = make_plan(study, "train", make_cells("train", [tiny()])).cells
    folder = study.folder("train", cell.id)
    job = RunningJob.claim(study, "train", [cell.id])
    before = folder.status()
    assert read_state(study).cells[0].hang is None
    folder.write_status(type(before).from_json({**before.to_json(), "updated": time.time() - 400}))
    [state] = read_state(study).cells
    assert state.progress_age == pytest.approx(400, abs=20)
    assert state.hang == hang_in_words(400, os.getpid())
    console = Console(file=io.StringIO(), width=200)
    console.print(view(read_state(study), is_terminal=False))
    assert f"{state.hang}: cell {cell.id}" in console.file.getvalue()  # type: ignore[attr-defined]
    job.give_up(f"{state.hang}")
    assert read_state(study).hangs() == [f"{state.hang}: cell {cell.id}, whose process was ended"]


def test_work_without_steps_is_noted_in_the_status(study: Study, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainlarge.launch.job.PROGRESS_SECONDS", 0.02)
    monkeypatch.setattr("trainlarge.launch.job.HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr("trainlarge.launch.job.WORK_SECONDS", 0.1)
    [cell] = make_plan(study, "train", make_cells("train", [tiny()])).cells
    folder, job = study.folder("train", cell.id), RunningJob.claim(study, "train", [cell.id])
    claimed = folder.status().updated
    with job.running():
        time.sleep(0.3)
        assert folder.status().updated == pytest.approx(claimed, abs=0.2), "it did nothing since"
        wait_for(lambda: job.signs.note() or folder.status().updated > claimed + 0.2)
        job.give_up("enough")


def seconds_until_a_hang(limit: float, work: Callable[[], object]) -> float | None:
    """Do ``work`` while this process is watched; after how long that was taken for a hang."""
    hangs: list[float] = []
    began = time.monotonic()
    with watched(SignsOfWork(), limit, lambda _: hangs.append(time.monotonic() - began)):
        work()
    return hangs[0] if hangs else None


def test_waiting_is_a_hang_and_work_of_a_child_is_none() -> None:
    waited = seconds_until_a_hang(0.8, lambda: time.sleep(2))
    assert waited is not None and waited >= 0.8
    spin = [sys.executable, "-c", "import time\nend = time.monotonic() + 4\nwhile time.monotonic() < end: pass"]
    assert seconds_until_a_hang(1.5, lambda: subprocess.run(spin, check=True)) is None


def test_a_limit_of_0_watches_nothing() -> None:
    assert seconds_until_a_hang(0, lambda: time.sleep(0.1)) is None
