"""What a job's own process does: claim the cells, send all output to the log, run the stage."""

from __future__ import annotations

import faulthandler
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainlarge.errors import UserError
from trainlarge.launch.hang import SignsOfWork, kill_with_children, watched
from trainlarge.launch.job import RunningJob
from trainlarge.launch.job_log import log_to_cells, log_to_file
from trainlarge.launch.stage_runner import runner_named
from trainlarge.machine.environment import VISIBLE_DEVICES, forget_enclosing_ranks
from trainlarge.machine.provenance import code
from trainlarge.machine.resources import Resources
from trainlarge.sweep.store import Study

log = logging.getLogger(__name__)

FAILED_STATUS = 1
PREEMPTED_STATUS = 75
"""Asked to stop, with cells that are not done (EX_TEMPFAIL of sysexits.h)."""
HUNG_STATUS = 76
"""Ended by itself because it did not work any more."""


@dataclass(frozen=True)
class Assignment:
    """What one process is to do."""

    study: Path
    """The study folder."""
    stage: str
    """Stage of the cells."""
    cell_ids: tuple[str, ...]
    """Cells of one job, or those that are prepared together."""
    resources: Resources
    """Cores and GPUs that the process may use, or that each job will have."""
    command: str | None = None
    """The command line that asked for the cells; None where Python code did."""


def run_job(
    assignment: Assignment,
    on_claim: Callable[[RunningJob], None] = lambda _job: None,
    on_hang: Callable[[], int] = lambda: HUNG_STATUS,
    begin: Callable[[], None] = lambda: None,
) -> int:
    """Run the cells that can be claimed. Where the job hangs, this ends the process.

    Args:
        on_claim: is given the job before it runs.
        on_hang: called last when the job hangs and has given up its cells; the exit status of the process.
        begin: called when the cells are claimed; what it raises is their error.

    Returns:
        Exit status: 0, ``FAILED_STATUS`` or ``PREEMPTED_STATUS``.
    """
    # Asked and kept now: the checkout may move on while the cells are trained.
    code()
    forget_enclosing_ranks()
    given = assignment
    job = RunningJob.claim(Study(given.study), given.stage, given.cell_ids, given.resources, given.command)
    on_claim(job)
    if not job.cells:
        return FAILED_STATUS if job.unclaimed else 0
    try:
        _run_watched(job, begin, on_hang)
    except UserError as error:
        log.error("%s", error)
        return FAILED_STATUS
    except Exception:
        log.exception("the job failed")
        return FAILED_STATUS
    if job.is_asked_to_stop:
        return PREEMPTED_STATUS
    return FAILED_STATUS if job.unclaimed else 0


def _run_watched(job: RunningJob, begin: Callable[[], None], on_hang: Callable[[], int]) -> None:
    """Run the stage of a job; end this process where it hangs."""

    def end_hung(reason: str) -> None:
        _say_where_it_hangs(reason)
        job.give_up(reason)
        _exit_with_children(on_hang)

    with job.running(), watched(job.signs, job.cells[0].config.launcher.hang_seconds, end_hung):
        log_to_cells([job.folder(cell.id) for cell in job.cells])
        job.resources.enter()
        if VISIBLE_DEVICES in os.environ:
            log.info("%s=%s", VISIBLE_DEVICES, os.environ[VISIBLE_DEVICES])
        # Stops at once where that was asked for already, before a model is loaded.
        job.check()
        begin()
        runner_named(job.stage).run(job)


def _say_where_it_hangs(reason: str) -> None:
    """Write to the log where each thread of this process is."""
    log.error("%s: the process ends; its threads were at:", reason)
    faulthandler.dump_traceback(all_threads=True)


def _exit_with_children(status: Callable[[], int]) -> None:
    """End this process at once, whatever its main thread waits for, with those that it has started."""
    try:
        kill_with_children(os.getpid(), but_itself=True)
        os._exit(status())
    finally:
        os._exit(HUNG_STATUS)


def prepare_jobs(assignment: Assignment) -> None:
    """Do what the jobs of these cells share before the first of them starts; what it prints goes to a log of its own.

    Args:
        assignment: with the cells that ``Stage.to_prepare`` gives.
    """
    study, stage = Study(assignment.study), assignment.stage
    forget_enclosing_ranks()
    try:
        log_to_file(study.path / f"prepare-{stage}.log", "prepare")
        cells = [study.folder(stage, cell_id).cell() for cell_id in assignment.cell_ids]
    except (OSError, UserError) as error:
        # Each job finds that out for itself, or does without this log.
        log.error("not prepared together: %s", error)
        return
    assignment.resources.enter()

    def end_hung(reason: str) -> None:
        _say_where_it_hangs(reason)
        _exit_with_children(lambda: HUNG_STATUS)

    with watched(SignsOfWork(), cells[0].config.launcher.hang_seconds, end_hung):
        runner_named(stage).prepare(study, cells, assignment.resources)
