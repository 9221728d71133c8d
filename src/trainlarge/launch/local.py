"""Jobs on this machine, each in its own process, so that a crash or a killed process ends one job and not the sweep."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from trainlarge.launch.job import mark_lost
from trainlarge.launch.threads import make_threads_yield
from trainlarge.launch.worker import run_job
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.stages import runner_modules
from trainlarge.sweep.store import Study

POLL_SECONDS = 0.1
GRACE_SECONDS = 15.0
"""Time that jobs have to stop after an interrupt before they are killed."""


class Watcher(Protocol):
    """What is told of the jobs while they run."""

    def update(self, running: list[Job], waiting: int) -> None:
        """Called several times a second."""


@dataclass
class _Process:
    job: Job
    process: BaseProcess


class LocalLauncher:
    """Runs at most ``workers`` jobs at once, each started from a server process that has imported torch once."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        make_threads_yield()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["trainlarge.launch.worker", *runner_modules()])

    def run(self, study: Study, plan: Plan, watcher: Watcher) -> None:
        """Run all jobs of ``plan`` to their ends. An interrupt stops them and leaves their cells claimable."""
        waiting = list(plan.jobs)
        running: list[_Process] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    running.append(self._start(study, waiting.pop(0)))
                wait([entry.process.sentinel for entry in running], timeout=POLL_SECONDS)
                running = [entry for entry in running if not _has_ended(study, entry)]
                watcher.update([entry.job for entry in running], len(waiting))
        except BaseException:
            _stop(study, running)
            raise

    def _start(self, study: Study, job: Job) -> _Process:
        cores = max(1, len(os.sched_getaffinity(0)) // self.workers)
        arguments = (study.path, job.stage, list(job.cell_ids), cores)
        process = self._context.Process(target=_run_in_child, args=arguments, daemon=False)
        process.start()
        return _Process(job, process)


def _run_in_child(*arguments: object) -> None:
    # The terminal sends an interrupt to every process; only the launcher acts on it, and asks its jobs to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run_job(*arguments)  # type: ignore[arg-type]


def _has_ended(study: Study, entry: _Process) -> bool:
    if entry.process.is_alive():
        return False
    entry.process.join()
    code = entry.process.exitcode or 0
    if code:
        mark_lost(study, entry.job.stage, list(entry.job.cell_ids), _why(code))
    return True


def _why(code: int) -> str:
    if code > 0:
        return f"the process ended with status {code}"
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return f"the process was killed by {signal.Signals(-code).name}{hint}"


def _stop(study: Study, running: list[_Process]) -> None:
    for entry in running:
        entry.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for entry in running:
        entry.process.join(max(0.0, deadline - time.monotonic()))
        if entry.process.is_alive():
            entry.process.kill()
            entry.process.join()
        _has_ended(study, entry)
