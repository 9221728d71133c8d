"""Stop signals that arrive before a job can handle them itself."""

from __future__ import annotations

import signal
from types import FrameType

from trainlarge.launch.job import STOP_SIGNALS, RunningJob


class EarlyStop:
    """Catches stop signals from the start of a job's process, until the job catches them itself."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._job: RunningJob | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def attach(self, job: RunningJob) -> None:
        """Ask ``job`` to stop where a signal has come already, and where one comes before the job catches them."""
        self._job = job
        if self.reason:
            job.request_stop(self.reason)

    def request(self, reason: str) -> None:
        """Ask the job to stop, as a signal would; from any thread."""
        self.reason = reason
        if self._job:
            self._job.request_stop(reason)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request(f"stopped by {signal.Signals(number).name}")
