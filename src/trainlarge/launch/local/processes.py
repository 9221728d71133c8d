"""The processes of the local launcher: one per job, so that a crash or a kill ends one job and not the sweep."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from trainlarge.config.launcher import LocalConfig
from trainlarge.launch.early_stop import EarlyStop
from trainlarge.launch.error_line import ended_in_words, signal_name
from trainlarge.launch.hang import STOPPED_SECONDS, hang_in_words, kill_with_children
from trainlarge.launch.job import mark_lost
from trainlarge.launch.local.device_lock import hold_devices
from trainlarge.launch.local.job_queue import JobQueue
from trainlarge.launch.safe_path import safe_children
from trainlarge.launch.worker import HUNG_STATUS, PREEMPTED_STATUS, Assignment, prepare_jobs, run_job
from trainlarge.machine.environment import make_threads_yield
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.stages import stage_named
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

POLL_SECONDS = 0.1
BEAT_SECONDS = 1.0
"""Time between two signs of life of a child."""
GRACE_SECONDS = 15.0
"""Time that jobs have to stop after an interrupt before they are killed."""


class Watcher(Protocol):
    """What shows the progress of the jobs."""

    def update(self, running: list[Job], elsewhere: list[Job]) -> None:
        """Called several times per second with our jobs, and with those that other processes run."""

    def say(self, text: str) -> None:
        """Print a line that stays."""


@dataclass
class _Process:
    """A child process, which beats while it is not stopped: a byte per second comes from a thread of its own."""

    process: BaseProcess
    beats: Connection
    heard: float = field(default_factory=time.monotonic)
    """When its last beat was heard."""
    hang: str | None = None
    """Why it was killed, where it fell silent."""

    def kill_if_silent(self, limit: float) -> None:
        """Kill it, with its own children, once no beat has come for ``limit`` seconds; 0: never."""
        with suppress(EOFError, OSError):
            while self.beats.poll():
                self.beats.recv_bytes()
                self.heard = time.monotonic()
        if limit and self.hang is None and time.monotonic() - self.heard >= limit:
            self.hang = hang_in_words(limit, self.process.pid)
            kill_with_children(self.process.pid or 0)


@dataclass
class _JobProcess(_Process):
    job: Job = field(kw_only=True)
    resources: Resources = field(kw_only=True)
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
        self._config, self._shares, self._looked = config, shares, time.monotonic()
        make_threads_yield()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["trainlarge.launch.loaded_code"])

    def run(self, study: Study, plan: Plan, watcher: Watcher) -> str | None:
        """Run the jobs of ``plan`` until all have ended, here or elsewhere, or too many cells have failed.

        An interrupt stops them and leaves their cells claimable.

        Returns:
            Why jobs were not started; None where all were.
        """
        self._prepare(study, plan, watcher)
        queue = JobQueue(study, plan, self._config)
        free, running = list(self._shares), list[_JobProcess]()
        try:
            while running or queue.is_open:
                while free and (job := queue.take()):
                    running.append(self._start(study, job, free.pop(0), plan.command))
                wait([entry.process.sentinel for entry in running], timeout=POLL_SECONDS)
                self._end_silent(running)
                for entry in [entry for entry in running if not entry.process.is_alive()]:
                    running.remove(entry)
                    free.append(entry.resources)
                    self._account_for(study, entry, queue, watcher)
                queue.look_elsewhere()
                while queue.fell_silent:
                    watcher.say(
                        f"no heartbeat from the process that ran cell {queue.fell_silent.pop()}: it is run here"
                    )
                if queue.stop_reason and self._config.fail_fast:
                    for entry in running:
                        entry.ask_to_stop()
                watcher.update([entry.job for entry in running], queue.elsewhere)
        except BaseException:
            _stop(study, running)
            raise
        return queue.stop_reason

    def _prepare(self, study: Study, plan: Plan, watcher: Watcher) -> None:
        """Have one process do what is better done before any job starts; what it cannot do each job does for itself."""
        todo = {cell_id for job in plan.jobs for cell_id in job.cell_ids}
        cells = stage_named(plan.stage).to_prepare([cell for cell in plan.cells if cell.id in todo])
        if not cells:
            return
        cell_ids = tuple(cell.id for cell in cells)
        assignment = Assignment(study.path, plan.stage, cell_ids, self._shares[0])
        entry = _Process(*self._started(_prepare_in_child, assignment))
        try:
            while entry.process.is_alive():
                entry.process.join(POLL_SECONDS)
                self._end_silent([entry])
        except BaseException:
            kill_with_children(entry.process.pid or 0)
            raise
        if entry.hang or entry.process.exitcode == HUNG_STATUS:
            hang = entry.hang or hang_in_words(self._config.hang_seconds, entry.process.pid)
            watcher.say(f"{hang} while it prepared for all jobs: it was ended, and each job prepares for itself")

    def _start(self, study: Study, job: Job, resources: Resources, command: str | None) -> _JobProcess:
        assignment = Assignment(study.path, job.stage, job.cell_ids, resources, command)
        return _JobProcess(*self._started(_run_in_child, assignment), job=job, resources=resources)

    def _started(
        self, target: Callable[[Assignment, Connection], None], assignment: Assignment
    ) -> tuple[BaseProcess, Connection]:
        heard, beats = self._context.Pipe(duplex=False)
        process = self._context.Process(target=target, args=(assignment, beats))
        with safe_children():
            process.start()
        beats.close()
        return process, heard

    def _end_silent(self, entries: Sequence[_Process]) -> None:
        """Kill the processes that have fallen silent: stopped, or in a call that lets no other thread run."""
        now, before, self._looked = time.monotonic(), self._looked, time.monotonic()
        for entry in entries:
            if now - before > STOPPED_SECONDS:
                # This process itself was stopped, or the machine slept.
                entry.heard = now
            entry.kill_if_silent(self._config.hang_seconds)

    def _account_for(self, study: Study, entry: _JobProcess, queue: JobQueue, watcher: Watcher) -> None:
        """Account for a job whose process has ended."""
        was_stopped, hang = _end(study, entry), _hang(study, entry)
        has_failed = hang is None and not was_stopped and entry.process.exitcode != 0
        again = queue.ended(entry.job, was_stopped, has_failed, has_hung=hang is not None)
        if hang:
            then = "its cells run again" if again else "its cells have failed"
            watcher.say(f"{hang}: the job of cell {entry.job.cell_ids[0]} was ended, and {then}")


def _run_in_child(assignment: Assignment, beats: Connection) -> None:
    _begin(beats)
    stop = EarlyStop()
    assignment.resources.enter()
    hold_devices(assignment.resources, lambda: stop.reason is not None)
    if stop.reason:
        sys.exit(PREEMPTED_STATUS)
    # Imports torch, as the fork server has.
    from trainlarge.launch.loaded_code import raise_failure

    sys.exit(run_job(assignment, stop.attach, begin=raise_failure))


def _prepare_in_child(assignment: Assignment, beats: Connection) -> None:
    _begin(beats)
    assignment.resources.enter()
    hold_devices(assignment.resources, lambda: False)
    prepare_jobs(assignment)


def _begin(beats: Connection) -> None:
    """The first that a child does."""
    # The terminal sends an interrupt to every process; only the launcher acts on it, and asks its jobs to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_beat, args=(beats,), name="beats", daemon=True).start()


def _beat(beats: Connection) -> None:
    # Ends with the launcher.
    with suppress(OSError):
        while True:
            beats.send_bytes(b".")
            time.sleep(BEAT_SECONDS)


def _end(study: Study, entry: _JobProcess) -> bool:
    """See to the cells of a process that has ended; whether it was asked to stop."""
    entry.process.join()
    code = entry.process.exitcode or 0
    entry.beats.close()
    if code not in (0, PREEMPTED_STATUS, HUNG_STATUS):
        state = State.PREEMPTED if entry.is_asked_to_stop or entry.hang else State.FAILED
        why = entry.hang or _why(code, entry.is_asked_to_stop)
        mark_lost(study, entry.job.stage, list(entry.job.cell_ids), state, why)
    return entry.is_asked_to_stop or code == PREEMPTED_STATUS


def _hang(study: Study, entry: _JobProcess) -> str | None:
    """In what words a process hung that this one has killed, or that has ended itself; None where it did neither."""
    if entry.hang or entry.process.exitcode != HUNG_STATUS:
        return entry.hang
    statuses = (study.folder(entry.job.stage, cell_id).status() for cell_id in entry.job.cell_ids)
    return next((status.error for status in statuses if status.state is State.PREEMPTED and status.error), None)


def _why(code: int, was_asked_to_stop: bool) -> str:
    if was_asked_to_stop and code < 0:
        return f"stopped by {signal_name(-code)} before it could save its state"
    return f"the process {ended_in_words(code)}"


def _stop(study: Study, running: list[_JobProcess]) -> None:
    for entry in running:
        entry.ask_to_stop()
    deadline = time.monotonic() + GRACE_SECONDS
    for entry in running:
        entry.process.join(max(0.0, deadline - time.monotonic()))
        if entry.process.is_alive():
            kill_with_children(entry.process.pid or 0)
        _end(study, entry)
