"""A clock that only steps move: what is measured of the time of steps does not depend on this machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trainlarge.machine import step_time
from trainlarge.machine.step_time import StepTimer, Window
from trainlarge.training import trunk_time
from trainlarge.training.loop import Loop

QUIET, BUSY = 1 / 64, 5 / 64
"""Seconds of a step without and with other work on the machine."""


class FakeClock:
    """A clock that only steps move; says how long each takes, of those timed on purpose and of those of a run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.is_probe = False
        self.trained = 0
        self.probe = BUSY
        self.training: Callable[[int], float] = lambda step: QUIET

    def step(self) -> None:
        self.trained += not self.is_probe
        self.now += self.probe if self.is_probe else self.training(self.trained)


def take_fake_clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """Has steps be timed by a fake clock."""
    fake = FakeClock()
    step, run_timed = StepTimer.step, Loop.timed

    def stepped(timer: StepTimer) -> None:
        fake.step()
        step(timer)

    def probed(loop: Loop, steps: int) -> list[Window]:
        fake.is_probe = True
        windows = run_timed(loop, steps)
        fake.is_probe = False
        return windows

    monkeypatch.setattr(StepTimer, "step", stepped)
    monkeypatch.setattr(Loop, "timed", probed)
    monkeypatch.setattr(step_time, "clocks", lambda: (fake.now, fake.now, 2 * fake.now))
    monkeypatch.setattr(trunk_time, "PATIENCE_SECONDS", 0.0)
    return fake
