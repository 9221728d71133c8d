"""What an array task does: read which job it is, run it like any other job, and go back into the queue if it must.

    python -m trainlarge.launch.slurm.task SUBMISSION.json FIRST

A job that was asked to stop has saved its state and has unfinished cells. Who asked does not matter, what SLURM is
about to do with the job does: if SLURM is ending it (cancelled, or requeued by SLURM itself) its state is no longer
RUNNING and nothing is to be done; if it still is RUNNING (the time limit is near, or the grace time of a preemption has
begun) SLURM would take our end for completion, so that the task requeues itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from trainlarge.errors import UserError
from trainlarge.launch.early_stop import EarlyStop
from trainlarge.launch.job import change_status
from trainlarge.launch.job_log import show_messages
from trainlarge.launch.slurm.command import SlurmRefusedError, slurm_command
from trainlarge.launch.slurm.failures import Failures
from trainlarge.launch.slurm.state import UNFINISHED, own_state
from trainlarge.launch.slurm.submission import Submission
from trainlarge.launch.worker import FAILED_STATUS, Assignment, run_job
from trainlarge.machine.environment import draw_without_screen, make_threads_yield
from trainlarge.machine.resources import Resources
from trainlarge.sweep.lease import HEARTBEAT_SECONDS, LEASE_SECONDS, WATCHED_HEARTBEATS, is_held
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder

log = logging.getLogger(__name__)

HOLDER_SECONDS = LEASE_SECONDS + (WATCHED_HEARTBEATS + 2) * HEARTBEAT_SECONDS
"""How long to wait for cells that another process holds: longer than the lease of a dead one lasts."""
ANSWER_SECONDS = 60.0
"""How long to ask SLURM that is silent or refuses: longer than its KillWait, and well within launcher.signal_lead."""
LOOK_SECONDS = 2.0


def run_task(submission: Submission, job_index: int) -> int:
    """Run one job of a submission.

    Returns:
        Exit status: 1 when a cell failed, so that SLURM calls the task FAILED too.
    """
    stop, failures = EarlyStop(), Failures.of(submission)
    cell_ids = list(submission.jobs[job_index])
    show_messages(cell_ids[0])
    folders = [submission.study.folder(submission.stage, cell_id) for cell_id in cell_ids]
    reason = failures.stop_reason()
    if reason:
        return _hold_back(folders, reason)
    _wait_for_holders(folders, stop)
    resources = Resources(int(os.environ.get("SLURM_CPUS_PER_TASK", 1)))
    study = submission.study.path
    assignment = Assignment(study, submission.stage, tuple(cell_ids), resources, submission.command)
    with failures.watched(stop):
        run_job(assignment, stop.attach, on_hang=lambda: _after(submission, folders, failures))
    return _after(submission, folders, failures)


def _wait_for_holders(folders: list[CellFolder], stop: EarlyStop) -> None:
    """Give a holder that died with its node the time to be known as dead; one that lives on keeps its cells."""
    deadline = time.monotonic() + HOLDER_SECONDS
    while _held(folders) and not stop.reason and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)


def _after(submission: Submission, folders: list[CellFolder], failures: Failures) -> int:
    failed = [folder for folder in folders if folder.status().state is State.FAILED]
    again = failures.add([folder.id for folder in failed])
    reason = failures.stop_reason()
    if reason:
        return max(_hold_back(folders, reason), FAILED_STATUS if failed else 0)
    unfinished = [folder for folder in folders if folder.status().state in UNFINISHED or folder.id in again]
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    held = _held(unfinished)
    if not unfinished:
        return FAILED_STATUS if failed else 0
    if len(held) == len(unfinished) and not restarts:
        log.info("another process runs these cells; nothing to do")
        return 0
    # What holds the cells of a restarted task is its own older copy, on a node that SLURM has lost sight of.
    if _patient_own_state() not in ("RUNNING", ""):
        return 0
    if restarts >= submission.launcher.max_requeues:
        return _give_up(unfinished, restarts)
    return _requeue()


def _patient_own_state() -> str:
    """SLURM's word for the state of this job; empty where it stays silent.

    A job that SLURM is ending does not outlive the silence, since SLURM kills it half a minute (KillWait) after the
    signal: what still runs has to requeue itself.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    while not (state := own_state(os.environ["SLURM_JOB_ID"])) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return state


def _requeue() -> int:
    task = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    log.info("cells are unfinished: back into the queue as %s", task)
    try:
        slurm_command("scontrol", "requeue", task)
    except (UserError, SlurmRefusedError) as error:
        log.error("scontrol requeue %s: %s", task, error)
        return FAILED_STATUS
    return 0


def _give_up(folders: list[CellFolder], restarts: int) -> int:
    error = f"not finished after {restarts} restarts: raise launcher.time or launcher.max_requeues and run again"
    log.error(error)
    for folder in folders:
        change_status(folder, error, State.FAILED)
    return FAILED_STATUS


def _hold_back(folders: list[CellFolder], reason: str) -> int:
    """Leave the cells to a later command; their states say why they were not run."""
    log.info("not run: %s", reason)
    for folder in folders:
        if folder.status().state in UNFINISHED:
            change_status(folder, f"not run: {reason}")
    return 0


def _held(folders: list[CellFolder]) -> list[CellFolder]:
    return [folder for folder in folders if not folder.is_done() and is_held(folder.path)]


if __name__ == "__main__":
    make_threads_yield()
    draw_without_screen()
    parser = argparse.ArgumentParser()
    parser.add_argument("submission", type=Path, help="the JSON file")
    parser.add_argument("first", type=int, help="the job that index 0 of the array stands for")
    arguments = parser.parse_args()
    try:
        submission = Submission.read(arguments.submission)
    except (OSError, ValueError) as error:
        allowed = f"what trainlarge wrote when it submitted the jobs ({error}): give the command again"
        sys.exit(str(UserError(str(arguments.submission), type(error).__name__, allowed)))
    sys.exit(run_task(submission, arguments.first + int(os.environ["SLURM_ARRAY_TASK_ID"])))
