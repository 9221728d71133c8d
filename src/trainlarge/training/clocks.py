"""The three clocks of a run: training only, modelled, and wall."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Seconds:
    """What a clock showed, from which one continues after a branch or a restart."""

    train_seconds: float
    """Seconds of training."""
    wall_seconds: float
    """Seconds of everything."""


@dataclass
class Clock:
    """Seconds of training, stopped while anything else is done.

    ``train_seconds`` counts training alone: no evaluation, checkpoint, compilation, preparation of data or time lost.
    """

    train_seconds: float = 0.0
    """Seconds of training so far."""
    wall_seconds: float = 0.0
    """Seconds of everything before this process or branch began."""
    _started: float | None = field(default=None, repr=False)
    _born: float = field(default_factory=time.perf_counter, repr=False)

    def start(self) -> None:
        """Training starts or continues."""
        if self._started is None:
            self._started = time.perf_counter()

    def stop(self) -> None:
        """Something other than training begins."""
        if self._started is not None:
            self.train_seconds += time.perf_counter() - self._started
            self._started = None

    def seconds(self) -> float:
        """Seconds of training so far, those since the last start included."""
        return self.snapshot().train_seconds

    @property
    def is_running(self) -> bool:
        """Whether it is counting."""
        return self._started is not None

    def wall(self) -> float:
        """Seconds of everything so far."""
        return self.wall_seconds + time.perf_counter() - self._born

    def snapshot(self) -> Seconds:
        """What it shows now, to continue from later."""
        running = time.perf_counter() - self._started if self._started is not None else 0.0
        return Seconds(self.train_seconds + running, self.wall())

    @classmethod
    def restored(cls, snapshot: Seconds) -> Clock:
        """A stopped clock that continues from ``snapshot``."""
        return cls(snapshot.train_seconds, snapshot.wall_seconds)
