"""When the state of a run is saved while it trains, and what of it."""

from __future__ import annotations

import time
from dataclasses import replace

from trainlarge.launch.job import RunningJob
from trainlarge.training.ranks import as_rank_0_says
from trainlarge.training.train_run import TrainRun
from trainlarge.training.writer import Writer


class Saver:
    """Saves the state of a run every ``impl.save_seconds``, and when the job is asked to stop."""

    def __init__(self, run: TrainRun, job: RunningJob, writer: Writer) -> None:
        self.run, self.job, self.writer = run, job, writer
        self.seconds: float = run.context.config.impl.save_seconds
        self.saved_at = time.monotonic()

    def save_if_due(self, part: str, stop: int) -> None:
        """Save the state of ``part``, which trains to the position ``stop``, if it is time for it."""
        is_due = time.monotonic() - self.saved_at > self.seconds or self.job.is_asked_to_stop
        # A divided state is gathered from all ranks at the same step.
        if self.run.context.is_sharded:
            is_due = as_rank_0_says(is_due)
        if is_due:
            self.run.pause()
            self.save(part, stop)
            self.run.clock.start()

    def save(self, part: str, stop: int) -> None:
        """Save the state under its position, at most ``stop``: the real clock goes past it by a part of a step."""
        state = self.run.state()
        whole = replace(state, snapshot=state.snapshot.whole())
        self.writer.state(part, whole, min(self.run.position, stop))
        self.saved_at = time.monotonic()
