"""Kept step times: rounds of timed steps, from which :mod:`trainlarge.machine.step_time` makes the estimate.

Raw seconds move by a factor of several on a shared machine and would reorder the curves. So all cells of a shape use
one steady-state step time, kept with the study. Li et al. 2020 do the same: settled time of 100 steps on one named
GPU, times the number of steps. Steps are timed on purpose before training, and while a run trains; a later round may
prove the estimate too large, never too small.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainlarge.config.canonical import canonical_json
from trainlarge.machine.step_time import (
    LEAST_ROUNDS,
    WINDOW_SECONDS,
    WINDOW_STEPS,
    Round,
    Window,
    estimated,
    is_settled,
)
from trainlarge.sweep.files import make_folder
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.step_times import read_measured

PRECISIONS = "precision"
"""Folder next to the step times in which the precision of each device is kept."""
WARM_UP_STEPS = 5
ROUND_SECONDS = 0.4
"""About how long the steps of a round are timed."""
KEPT_ROUNDS = 60
"""Rounds of a shape that are kept, those with the fastest windows in any case."""
TimeSteps = Callable[[int], list[Window]]
"""Runs so many training steps, takes them back, and returns their windows, at least one."""


class StepTiming:
    """The step times of one shape on one device, computed in one way.

    Args:
        folder: where the times of a study lie; writing into a link raises UserError.
        key: plain data that names device, implementation, shape and batch.
    """

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        self.path, self.key = _path(folder, key), key

    @classmethod
    def of_file(cls, path: Path) -> StepTiming:
        """The step times that another device or implementation has kept in ``path``, if it is there."""
        timing = cls(path.parent, read_measured(path).get("key", {}))
        timing.path = path
        return timing

    @property
    def name(self) -> str:
        """Name of the file, without its suffix."""
        return self.path.stem

    def rounds(self) -> list[Round]:
        """What was observed so far, the oldest first."""
        return _rounds(read_measured(self.path))

    def estimate(self) -> float | None:
        """The steady-state step time as it looks now, in seconds; None where nothing was observed."""
        rounds = self.rounds()
        return estimated(rounds) if rounds else None

    def cpu_seconds(self) -> float | None:
        """CPU seconds per step of the process in the fastest window; None where they were not measured."""
        measured = [some for some in self.rounds() if some.cpu_seconds is not None]
        return min(measured, key=lambda some: some.fastest[0]).cpu_seconds if measured else None

    def thread_share(self) -> float | None:
        """The largest of the rounds' shares of CPU time: below 0.8, no round was undisturbed; None: not known."""
        return max((some.thread_share for some in self.rounds() if some.thread_share is not None), default=None)

    def add(self, some: Round) -> None:
        """Keep a round."""
        self._change(lambda data: data | {"rounds": [known.to_json() for known in _trimmed([*_rounds(data), some])]})

    def use_for(self, cells: dict[str, float]) -> None:
        """Keep by which step time the budgets of cells became steps; what other files say of these cells is dropped."""
        for other in self.path.parent.glob("*.json"):
            if other != self.path and cells.keys() & read_measured(other).get("cells", {}).keys():
                _change(other, lambda data: data | {"cells": _without(data.get("cells", {}), cells)})
        self._change(lambda data: data | {"cells": data.get("cells", {}) | cells})

    def _change(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        make_folder(self.path.parent)
        _change(self.path, lambda data: change({"key": self.key} | data))


def settle(timing: StepTiming, time_steps: TimeSteps, patience: float, least: int = 0) -> float:
    """Time steps until more rounds would tell nothing; returns the steady-state step time in seconds.

    Args:
        patience: seconds of timing after which the estimate of a few rounds is taken as it is; 0: of one round.
        least: rounds to add at least.
    """
    began = time.monotonic()
    while True:
        rounds = timing.rounds()
        needed = LEAST_ROUNDS if patience else 1
        is_enough = is_settled(rounds) or (len(rounds) >= needed and time.monotonic() - began >= patience)
        if is_enough and least <= 0:
            return estimated(rounds)
        if not rounds:
            time_steps(WARM_UP_STEPS)
        timing.add(Round.of("probe", time_steps(_steps_of_a_round(timing.estimate()))))
        least -= 1


def kept(folder: Path, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured for ``key``, at its first call, and is kept in ``folder``; other processes wait meanwhile.

    Args:
        folder: made where it is not there; a link in its place, or of the folder above it, raises UserError.
        key: plain data.
        measure: gives plain data; called at most once for each ``key``.
    """
    for place in (folder.parent, folder):
        make_folder(place)
    path = _path(folder, key)
    with FileLock(path.with_suffix(".lock")):
        if found := read_measured(path):
            return found
        write_sealed(path, {"key": key, **measure()})
        return read_measured(path)


def _path(folder: Path, key: dict[str, Any]) -> Path:
    return folder / f"{hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]}.json"


def _steps_of_a_round(step_seconds: float | None) -> int:
    """As many as take ``ROUND_SECONDS``, and a window at least."""
    if step_seconds is None:
        return 2 * WINDOW_STEPS
    window = min(WINDOW_STEPS, math.ceil(WINDOW_SECONDS / step_seconds))
    return max(window, round(ROUND_SECONDS / step_seconds))


def _rounds(data: dict[str, Any]) -> list[Round]:
    if "rounds" not in data and "step_seconds" in data:
        return [Round.of_before(data["step_seconds"], data.get("steps", 0))]
    return [Round.from_json(some) for some in data.get("rounds", [])]


def _trimmed(rounds: list[Round]) -> list[Round]:
    fastest = sorted(rounds, key=lambda some: some.fastest[0])[: KEPT_ROUNDS // 2]
    return [some for some in rounds if some in fastest or some in rounds[-KEPT_ROUNDS // 2 :]]


def _change(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    with FileLock(path.with_suffix(".lock")):
        data = change(read_measured(path))
        rounds = _rounds(data)
        write_sealed(path, data | ({"step_seconds": estimated(rounds)} if rounds else {}))


def _without(cells: dict[str, float], gone: dict[str, float]) -> dict[str, float]:
    return {cell: seconds for cell, seconds in cells.items() if cell not in gone}
