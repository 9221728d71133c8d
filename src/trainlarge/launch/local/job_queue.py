"""The jobs of one command: what waits, what other processes run, what has failed. No processes here, only cells."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from trainlarge.config.launcher import LauncherConfig
from trainlarge.launch.job import mark_lost
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

LOOK_SECONDS = 1.0
"""Time between two looks at the cells that other processes run."""


class JobQueue:
    """Gives out the jobs of a plan until all cells have ended, or until too many have failed.

    A cell that another process holds is left to it, and looked at again: when it is done there is nothing to do, when
    it has failed that counts as a failure, and when its holder has stopped or died it is run here.
    """

    def __init__(self, study: Study, plan: Plan, config: LauncherConfig) -> None:
        self.elsewhere: list[Job] = []
        """Cells that other processes run, as the jobs that they belong to."""
        self.fell_silent: list[str] = []
        """Cells that other processes ran until they sent no heartbeat any more; they are run here."""
        self._study, self._config = study, config
        self._waiting = list(plan.jobs)
        self._failures: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._hung: set[str] = set()
        self._next_look = 0.0

    @property
    def stop_reason(self) -> str | None:
        """Why no job is given out any more; None while there may be one."""
        return self._config.stop_reason(len(self._given_up))

    @property
    def is_open(self) -> bool:
        """Whether there may be another job, now or when another process has left its cells."""
        return bool(self._waiting or self.elsewhere) and self.stop_reason is None

    def take(self) -> Job | None:
        """The next job, with those of its cells that no process holds; None where there is none now."""
        while self._waiting and self.stop_reason is None:
            free = self._free(self._waiting.pop(0))
            if free.cell_ids:
                return free
        return None

    def ended(self, job: Job, was_stopped: bool, has_failed: bool = False, has_hung: bool = False) -> bool:
        """Account for a job whose process has ended.

        Args:
            was_stopped: it was asked to stop, so that what it left preempted is not run again.
            has_failed: it ended with an error, so that what no process holds has failed, whatever its status says,
                which nobody could write where the folder cannot be written.
            has_hung: it did not work any more; its cells run again, but where they have hung before they have failed.

        Returns:
            Whether cells of it that hung run again.
        """
        if has_hung:
            self._fail_where_hung_before(job)
        states = {cell_id: self._folder(job, cell_id).status().state for cell_id in job.cell_ids}
        over = {State.DONE, State.FAILED, *([State.PREEMPTED] if was_stopped else [])}
        left = [cell_id for cell_id, state in states.items() if state not in over]
        lost = [cell_id for cell_id in left if has_failed and not is_held(self._folder(job, cell_id).path)]
        self._count_failed(job, [*(cell_id for cell_id, state in states.items() if state is State.FAILED), *lost])
        if has_hung:
            self._wait(job, left)
            return bool(left)
        # The process did not get these: another one held them when it came.
        self._leave_elsewhere(job, [cell_id for cell_id in left if cell_id not in lost])
        return False

    def _fail_where_hung_before(self, job: Job) -> None:
        for cell_id in job.cell_ids:
            status = self._folder(job, cell_id).status()
            if cell_id in self._hung:
                mark_lost(self._study, job.stage, [cell_id], State.FAILED, f"{status.error}, for the second time")
        self._hung.update(job.cell_ids)

    def look_elsewhere(self) -> None:
        """Look at the cells that other processes run, at most once per second."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        jobs, self.elsewhere = self.elsewhere, []
        for job in jobs:
            free = self._free(job)
            states = {cell_id: self._folder(job, cell_id).status().state for cell_id in free.cell_ids}
            failed = [cell_id for cell_id, state in states.items() if state is State.FAILED]
            self._count_failed(job, failed)
            self._wait(job, [cell_id for cell_id in free.cell_ids if cell_id not in failed])
            self.fell_silent += [cell_id for cell_id, state in states.items() if state is State.RUNNING]

    def _free(self, job: Job) -> Job:
        """The job without cells that are done, and without those that are held, which are left to their holders."""
        held = [cell_id for cell_id in job.cell_ids if is_held(self._folder(job, cell_id).path)]
        self._leave_elsewhere(job, held)
        # Asked after the lease: a holder may have finished between the two looks.
        free = [cell_id for cell_id in job.cell_ids if cell_id not in held]
        return replace(job, cell_ids=tuple(cell_id for cell_id in free if not self._folder(job, cell_id).is_done()))

    def _count_failed(self, job: Job, cell_ids: list[str]) -> None:
        self._failures.update(cell_ids)
        again = [cell_id for cell_id in cell_ids if self._failures[cell_id] <= self._config.retries]
        self._given_up.update(cell_id for cell_id in cell_ids if cell_id not in again)
        self._wait(job, again)

    def _wait(self, job: Job, cell_ids: list[str]) -> None:
        if cell_ids:
            self._waiting.append(replace(job, cell_ids=tuple(cell_ids)))

    def _leave_elsewhere(self, job: Job, cell_ids: list[str]) -> None:
        if cell_ids and self._config.wait:
            self.elsewhere.append(replace(job, cell_ids=tuple(cell_ids)))

    def _folder(self, job: Job, cell_id: str) -> CellFolder:
        return self._study.folder(job.stage, cell_id)
