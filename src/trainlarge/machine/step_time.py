"""The steady-state step time: what is observed of steps, and the estimate that is made from it.

Steps are timed in *windows*: ten steps in a row, or fewer where they take a second. A window is one number, its
seconds per step. A *round* is what some steps in a row, timed on purpose or trained, leave behind: their fastest
windows, quantiles over all of them, and how much CPU time they had.

**The estimate is the second-lowest window of all rounds.** Foreign load only ever adds time, and it comes and goes: a
window of some tens of milliseconds needs one short pause of the neighbours to be undisturbed. A quantile over all
steps needs them to be quiet for that share of the time, which three busy programs on two cores are not: measured with
three that work and rest for 0.2 to 3 s, one window of ten was quiet for one shape, and the lower quartile was seven
times the quiet time. The lowest window alone would trust one lucky reading of the clock. More rounds never raise the
estimate, and over 100 windows of a quiet machine it is 2 to 4 % below their median.

Whether a window was disturbed can be seen directly where the thread that trains computes or spins all the time (the
default on a CPU, ``machine/environment.py``): its CPU time is then 0.98 to 1.00 of the wall time, and at most 0.75
while other programs run. Threads that sleep while they wait (``OMP_WAIT_POLICY=passive``) have less on a quiet machine
too, and tell nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

WINDOW_STEPS = 10
WINDOW_SECONDS = 1.0
"""Time after which a window of slow steps ends before it has ten."""
FASTEST = 3
"""Windows of a round that are kept one by one."""
QUANTILES = (0.05, 0.25, 0.5)
QUIET_SHARE = 0.95
"""CPU time of the training thread over wall time from which a window counts as undisturbed."""
AGREE = 1.1
"""Ratio up to which two windows count as equally fast."""
QUIET_ROUNDS = 2
"""Undisturbed rounds that agree, from which on more would tell nothing."""
LEAST_ROUNDS = 3
MANY_ROUNDS = 8
"""Rounds that must agree where CPU time does not show what was undisturbed."""


@dataclass(frozen=True)
class Window:
    """A few steps in a row."""

    steps: int
    """How many."""
    seconds: float
    """Wall time per step."""
    thread_seconds: float
    """CPU time of the training thread per step."""
    cpu_seconds: float
    """CPU time of the whole process per step."""


def clocks() -> tuple[float, float, float]:
    """Wall time, CPU time of this thread and of this process, in seconds."""
    return time.perf_counter(), time.thread_time(), time.process_time()


def threads_spin() -> bool:
    """Whether a thread that waits for others uses its core, so that CPU time shows what was undisturbed."""
    return os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive"


class StepTimer:
    """Cuts the steps that are reported to it into windows.

    Args:
        synchronize: waits until the device has done all that was asked of it; called at the ends of windows only, since
            a GPU that is waited for after each step idles while Python works.
    """

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        self.windows: list[Window] = []
        """Windows that are complete."""
        self._synchronize = synchronize
        self._begin: tuple[float, float, float] | None = None
        self._steps = 0

    def step(self) -> None:
        """A step has ended; the first one after a pause only starts a window."""
        if self._begin is None:
            self._begin, self._steps = self._now(), 0
            return
        self._steps += 1
        if self._steps >= WINDOW_STEPS or clocks()[0] - self._begin[0] >= WINDOW_SECONDS:
            self._close(self._begin)

    def pause(self) -> None:
        """Something else than steps follows; a window that is not complete is dropped."""
        self._begin = None

    def take(self, at_least_one: bool = False) -> list[Window]:
        """The windows so far, which are forgotten.

        Args:
            at_least_one: count one that is not complete where there is no other.
        """
        if at_least_one and not self.windows and self._begin and self._steps:
            self._close(self._begin)
        windows, self.windows = self.windows, []
        return windows

    def _close(self, begin: tuple[float, float, float]) -> None:
        end = self._now()
        wall, thread, cpu = ((after - before) / self._steps for before, after in zip(begin, end, strict=True))
        self.windows.append(Window(self._steps, wall, thread, cpu))
        self._begin, self._steps = end, 0

    def _now(self) -> tuple[float, float, float]:
        self._synchronize()
        return clocks()


@dataclass(frozen=True)
class Round:
    """What some steps in a row leave behind; seconds are those of one step."""

    kind: Literal["probe", "training"]
    """``probe``: timed on purpose; ``training``: steps of a run."""
    ended: float
    """When it ended, since 1970."""
    steps: int
    """Steps in its windows."""
    fastest: tuple[float, ...]
    """Its fastest windows, the fastest first."""
    thread_share: float | None
    """CPU time of the training thread over wall time, in the fastest window; None where that would tell nothing."""
    cpu_seconds: float | None
    """CPU time of the process, in the fastest window."""
    quantiles: tuple[float, ...] = ()
    """``QUANTILES`` over all windows."""
    mean_seconds: float | None = None
    """Wall time, mean of all windows."""
    mean_cpu_seconds: float | None = None
    """CPU time of the process, mean of all windows."""

    def __post_init__(self) -> None:
        if not self.fastest or self.fastest[0] <= 0:
            raise ValueError(f"fastest={list(self.fastest)} is not valid: must be seconds above 0, at least one")

    @property
    def is_quiet(self) -> bool:
        """Whether CPU time shows that the fastest window was undisturbed."""
        return self.thread_share is not None and self.thread_share >= QUIET_SHARE

    @classmethod
    def of(cls, kind: Literal["probe", "training"], windows: Sequence[Window]) -> Round:
        """What ``windows``, at least one, leave behind."""
        ordered = sorted(windows, key=lambda window: window.seconds)
        seconds, first = [window.seconds for window in ordered], ordered[0]
        steps = sum(window.steps for window in windows)
        return cls(
            kind=kind,
            ended=time.time(),
            steps=steps,
            fastest=tuple(seconds[:FASTEST]),
            thread_share=first.thread_seconds / first.seconds if threads_spin() else None,
            cpu_seconds=first.cpu_seconds,
            quantiles=tuple(float(value) for value in np.quantile(seconds, QUANTILES)),
            mean_seconds=sum(window.seconds * window.steps for window in windows) / steps,
            mean_cpu_seconds=sum(window.cpu_seconds * window.steps for window in windows) / steps,
        )

    @classmethod
    def of_before(cls, step_seconds: float, steps: int) -> Round:
        """A time that was kept before there were rounds: the lower quartile of some steps in a row."""
        return cls("probe", 0.0, steps, (step_seconds, step_seconds), None, None)


def estimated(rounds: Iterable[Round]) -> float:
    """The steady-state step time in seconds: the second-lowest window of all ``rounds``, of which there is one."""
    windows = sorted(seconds for observed in rounds for seconds in observed.fastest)
    return windows[min(1, len(windows) - 1)]


def is_settled(rounds: Sequence[Round]) -> bool:
    """Whether more rounds would tell nothing: enough of them agree, and were undisturbed as far as that can be seen."""
    if len(rounds) < LEAST_ROUNDS:
        return False
    limit = AGREE * estimated(rounds)
    agreeing = [observed for observed in rounds if observed.fastest[0] <= limit]
    unknown = sum(observed.thread_share is None for observed in agreeing)
    return sum(observed.is_quiet for observed in agreeing) >= QUIET_ROUNDS or unknown >= MANY_ROUNDS
