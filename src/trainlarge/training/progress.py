"""How far a train job is, and how long it will still take."""

from __future__ import annotations

import time

from trainlarge.launch.job import RunningJob
from trainlarge.sweep.status import CellProgress
from trainlarge.training.schedule import Branch
from trainlarge.training.train_run import TrainRun


class Progress:
    """Reports the progress of a run to its job, by the speed of the present segment."""

    def __init__(self, run: TrainRun, job: RunningJob) -> None:
        self.run, self.job = run, job
        self.begin()

    def begin(self) -> None:
        """A segment begins here and now."""
        self.first_step, self.first_position = self.run.step, self.run.position
        self.began = time.monotonic()

    def report(self, branch: Branch, branches: list[Branch]) -> None:
        """Report how far the run to the end of ``branch`` is, and the time left of the whole job.

        Args:
            branches: all of the job, in the order in which they are trained.
        """
        run, elapsed = self.run, max(time.monotonic() - self.began, 1e-9)
        speed = max(run.position - self.first_position, 1) / elapsed
        ahead = [other for other in branches if other.stop > branch.stop]
        later = (ahead[-1].start - branch.start if ahead else 0) + sum(other.stop - other.start for other in ahead)
        self.job.progress(
            branch.cell_ids[0],
            CellProgress(
                step=run.step,
                steps=run.length.steps(run.step, run.position, branch.stop),
                loss=run.curve.rows[-1].scores["loss"] if run.curve.rows else None,
                tokens_per_second=(run.step - self.first_step) / elapsed * run.context.step.tokens,
                seconds_left=max(branch.stop - run.position + later, 0) / speed,
            ),
        )
