"""The processes of the local launcher: one per job, so that a crash or a kill ends one job and not the sweep."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from trainlarge.config.launcher import LocalConfig
from trainlarge.launch.early_stop import EarlyStop
from trainlarge.launch.error_line import ended_in_words, signal_name
from trainlarge.launch.job import mark_lost
from trainlarge.launch.local.device_lock import hold_devices
from trainlarge.launch.local.job_queue import JobQueue
from trainlarge.launch.safe_path import safe_children
from trainlarge.launch.stage_runner import RUNNERS
from trainlarge.launch.worker import PREEMPTED_STATUS, Assignment, prepare_jobs, run_job
from trainlarge.machine.environment import make_threads_yield
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.stages import stage_named
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

POLL_SECONDS = 0.1
GRACE_SECONDS = 15.0
"""Time that jobs have to stop after an interrupt before they are killed."""


class Watcher(Protocol):
    """What shows the progress of the jobs."""

    def update(self, running: list[Job], elsewhere: list[Job]) -> None:
        """Called several times a second with our jobs, and with those that other processes run."""


@dataclass
class _Process:
    job: Job
    resources: Resources
    process: BaseProcess
    is_asked_to_stop: bool = False

    def ask_to_stop(self) -> None:
        if not self.is_asked_to_stop:
            self.is_asked_to_stop = True
            self.process.terminate()


class JobProcesses:
    """Runs one job on each share of the machine, each started from a server process that has imported torch once.

    The server has not started CUDA, so that each job's process can still be told which devices it sees.
    """

    def __init__(self, config: LocalConfig, shares: tuple[Resources, ...]) -> None:
        self._config, self._shares = config, shares
        make_threads_yield()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["trainlarge.launch.loaded_code", "trainlarge.launch.worker", *RUNNERS.values()]
        )

    def run(self, study: Study, plan: Plan, watcher: Watcher) -> str | None:
        """Run the jobs of ``plan`` until all have ended, here or elsewhere, or too many cells have failed.

        An interrupt stops them and leaves their cells claimable.

        Returns:
            Why jobs were not started; None where all were.
        """
        self._prepare(study, plan)
        queue = JobQueue(study, plan, self._config)
        free, running = list(self._shares), list[_Process]()
        try:
            while running or queue.is_open:
                while free and (job := queue.take()):
                    running.append(self._start(study, job, free.pop(0), plan.command))
                wait([entry.process.sentinel for entry in running], timeout=POLL_SECONDS)
                ended = [entry for entry in running if not entry.process.is_alive()]
                for entry in ended:
                    running.remove(entry)
                    free.append(entry.resources)
                    was_stopped = _end(study, entry)
                    has_failed = not was_stopped and entry.process.exitcode != 0
                    queue.ended(entry.job, was_stopped, has_failed)
                queue.look_elsewhere()
                if queue.stop_reason and self._config.fail_fast:
                    for entry in running:
                        entry.ask_to_stop()
                watcher.update([entry.job for entry in running], queue.elsewhere)
        except BaseException:
            _stop(study, running)
            raise
        return queue.stop_reason

    def _prepare(self, study: Study, plan: Plan) -> None:
        """Have one process do what is better done before any job starts; what it cannot do each job does for itself."""
        todo = {cell_id for job in plan.jobs for cell_id in job.cell_ids}
        cells = stage_named(plan.stage).to_prepare([cell for cell in plan.cells if cell.id in todo])
        if not cells:
            return
        cell_ids = tuple(cell.id for cell in cells)
        assignment = Assignment(study.path, plan.stage, cell_ids, self._shares[0])
        process = self._context.Process(target=_prepare_in_child, args=(assignment,), daemon=True)
        with safe_children():
            process.start()
        try:
            process.join()
        except BaseException:
            process.kill()
            raise

    def _start(self, study: Study, job: Job, resources: Resources, command: str | None) -> _Process:
        assignment = Assignment(study.path, job.stage, job.cell_ids, resources, command)
        process = self._context.Process(target=_run_in_child, args=(assignment,), daemon=False)
        with safe_children():
            process.start()
        return _Process(job, resources, process)


def _run_in_child(assignment: Assignment) -> None:
    # The terminal sends an interrupt to every process; only the launcher acts on it, and asks its jobs to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stop = EarlyStop()
    assignment.resources.enter()
    hold_devices(assignment.resources, lambda: stop.reason is not None)
    if stop.reason:
        sys.exit(PREEMPTED_STATUS)
    sys.exit(run_job(assignment, stop.attach))


def _prepare_in_child(assignment: Assignment) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assignment.resources.enter()
    hold_devices(assignment.resources, lambda: False)
    prepare_jobs(assignment)


def _end(study: Study, entry: _Process) -> bool:
    """See to the cells of a process that has ended; whether it was asked to stop."""
    entry.process.join()
    code = entry.process.exitcode or 0
    if code not in (0, PREEMPTED_STATUS):
        state = State.PREEMPTED if entry.is_asked_to_stop else State.FAILED
        mark_lost(study, entry.job.stage, list(entry.job.cell_ids), state, _why(code, entry.is_asked_to_stop))
    return entry.is_asked_to_stop or code == PREEMPTED_STATUS


def _why(code: int, was_asked_to_stop: bool) -> str:
    if was_asked_to_stop and code < 0:
        return f"stopped by {signal_name(-code)} before it could save its state"
    return f"the process {ended_in_words(code)}"


def _stop(study: Study, running: list[_Process]) -> None:
    for entry in running:
        entry.ask_to_stop()
    deadline = time.monotonic() + GRACE_SECONDS
    for entry in running:
        entry.process.join(max(0.0, deadline - time.monotonic()))
        if entry.process.is_alive():
            entry.process.kill()
        _end(study, entry)
