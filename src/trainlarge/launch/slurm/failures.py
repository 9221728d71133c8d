"""Failures of one submission, counted by its array tasks themselves: no other process watches them.

Each failure is an empty file ``<name>.failures/<cell id>.<token>`` in the study folder. Creating one needs no lock, and
what is counted does not depend on accounting.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainlarge.config.launcher import LauncherConfig
from trainlarge.launch.early_stop import EarlyStop
from trainlarge.launch.slurm.submission import Submission
from trainlarge.sweep.files import make_folder

LOOK_SECONDS = 5.0
"""Time between two looks at the failures of other tasks while a job runs."""


@dataclass(frozen=True)
class Failures:
    """What has failed in a submission, and what that leads to."""

    folder: Path
    """Where failures are noted."""
    config: LauncherConfig
    """What they lead to."""

    @classmethod
    def of(cls, submission: Submission) -> Failures:
        """The failures of a submission."""
        return cls(submission.failures, submission.launcher)

    def add(self, cell_ids: list[str]) -> set[str]:
        """Note a failure of each of the cells.

        Returns:
            Those that are to be tried again.
        """
        if cell_ids:
            make_folder(self.folder, inside=self.folder.parents[1])
        for cell_id in cell_ids:
            (self.folder / f"{cell_id}.{uuid.uuid4().hex[:8]}").touch()
        counts = self._counts()
        return {cell_id for cell_id in cell_ids if counts[cell_id] <= self.config.retries}

    def stop_reason(self) -> str | None:
        """Why no job may start any more; None while they may."""
        return self.config.stop_reason(sum(count > self.config.retries for count in self._counts().values()))

    @contextmanager
    def watched(self, stop: EarlyStop) -> Iterator[None]:
        """Ask the job that runs in this block to stop when another task's failure asks for it."""
        ended = threading.Event()
        if not self.config.fail_fast:
            yield
            return
        watch = threading.Thread(target=self._watch, args=(stop, ended), daemon=True)
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()

    def _watch(self, stop: EarlyStop, ended: threading.Event) -> None:
        while not ended.wait(LOOK_SECONDS):
            reason = self.stop_reason()
            if reason:
                stop.request(f"stopped: {reason}")
                return

    def _counts(self) -> Counter[str]:
        noted = self.folder.iterdir() if self.folder.is_dir() else ()
        return Counter(path.name.partition(".")[0] for path in noted)
