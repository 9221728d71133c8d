"""Kept step times: rounds of timed steps, from which :mod:`trainlarge.machine.step_time` makes the estimate.

Raw seconds move by a factor of several on a shared machine and would reorder the curves. So all cells of a shape use
one steady-state step time, kept with the study. Li et al. 2020 do the same: the time of 100 steady steps on one named
GPU, times the number of steps. Steps are timed on purpose before training, and while a run trains; a later round may
prove the estimate too large, never too small.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from trainlarge.config import typed_json
from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Plain
from trainlarge.machine.step_time import (
    LEAST_ROUNDS,
    WINDOW_SECONDS,
    WINDOW_STEPS,
    Round,
    Window,
    estimated,
    is_settled,
)
from trainlarge.sweep.files import file_lock, make_folder
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.step_times import read_measured

T = TypeVar("T")

PRECISIONS = "precision"
"""Folder next to the step times in which the precision of each device is kept."""
WARM_UP_STEPS = 5
ROUND_SECONDS = 0.4
"""About how long the steps of a round are timed."""
KEPT_ROUNDS = 60
"""Rounds of a shape that are kept, those with the fastest windows in any case."""
TimeSteps = Callable[[int], list[Window]]
"""Runs so many training steps, takes them back, and returns their windows, at least one."""


@dataclass(frozen=True)
class ProbeFile:
    """Content of a file of ``probes/``."""

    key: Mapping[str, Plain] = field(default_factory=dict)
    """Device, implementation, shape and batch."""
    rounds: tuple[Round, ...] | None = None
    """What was observed, the oldest first; None in files from before there were rounds."""
    step_seconds: float | None = None
    """The estimate that the rounds give, in seconds; None where nothing was observed."""
    steps: int = 0
    """In files from before there were rounds: steps that were timed."""
    cells: Mapping[str, float] = field(default_factory=dict)
    """Train cell -> step time by which its budget became steps."""

    def __post_init__(self) -> None:
        if self.step_seconds is not None and self.step_seconds <= 0:
            raise typed_json.JsonTypeError("step_seconds", self.step_seconds, "above 0")

    @property
    def observed(self) -> tuple[Round, ...]:
        """The rounds; for a file from before there were any, one that stands for what it says."""
        if self.rounds is None and self.step_seconds is not None:
            return (Round.of_before(self.step_seconds, self.steps),)
        return self.rounds or ()

    def with_round(self, observed: Round) -> ProbeFile:
        """With one more round; of many, the fastest and the newest stay."""
        rounds = (*self.observed, observed)
        fastest = sorted(rounds, key=lambda known: known.fastest[0])[: KEPT_ROUNDS // 2]
        newest = rounds[-KEPT_ROUNDS // 2 :]
        kept = tuple(known for known in rounds if known in fastest or known in newest)
        return replace(self, rounds=kept, step_seconds=estimated(kept), steps=0)

    def to_json(self) -> dict[str, Plain]:
        """Plain data, without what is not known."""
        return {name: value for name, value in typed_json.plain(self).items() if value or name == "key"}


class StepTiming:
    """The step times of one shape on one device, computed in one way.

    Args:
        folder: where the times of a study are; writing into a link raises UserError.
        key: plain data that names device, implementation, shape and batch.
    """

    def __init__(self, folder: Path, key: Mapping[str, Plain]) -> None:
        self.path, self.key = _path(folder, key), key

    @classmethod
    def of_file(cls, path: Path) -> StepTiming:
        """The step times that another device or implementation has kept in ``path``, if it is there."""
        timing = cls(path.parent, _times(path).key)
        timing.path = path
        return timing

    @property
    def name(self) -> str:
        """Name of the file, without its suffix."""
        return self.path.stem

    def rounds(self) -> tuple[Round, ...]:
        """What was observed so far, the oldest first."""
        return _times(self.path).observed

    def estimate(self) -> float | None:
        """The steady-state step time as it looks now, in seconds; None where nothing was observed."""
        rounds = self.rounds()
        return estimated(rounds) if rounds else None

    def cpu_seconds(self) -> float | None:
        """CPU seconds per step of the process in the fastest window; None where they were not measured."""
        measured = [observed for observed in self.rounds() if observed.cpu_seconds is not None]
        return min(measured, key=lambda observed: observed.fastest[0]).cpu_seconds if measured else None

    def thread_share(self) -> float | None:
        """The largest of the rounds' shares of CPU time: below 0.8, no round was undisturbed; None: not known."""
        shares = [observed.thread_share for observed in self.rounds() if observed.thread_share is not None]
        return max(shares, default=None)

    def add(self, observed: Round) -> None:
        """Keep a round."""
        self._change(lambda times: times.with_round(observed))

    def use_for(self, cells: Mapping[str, float]) -> None:
        """Keep by which step time the budgets of cells became steps; what other files say of these cells is dropped."""

        def without_cells(times: ProbeFile) -> ProbeFile:
            others = {cell: seconds for cell, seconds in times.cells.items() if cell not in cells}
            return replace(times, cells=others)

        for other in self.path.parent.glob("*.json"):
            if other != self.path and cells.keys() & _times(other).cells.keys():
                _change(other, without_cells)
        self._change(lambda times: replace(times, cells={**times.cells, **cells}))

    def _change(self, change: Callable[[ProbeFile], ProbeFile]) -> None:
        make_folder(self.path.parent, inside=self.path.parents[1])
        _change(self.path, lambda times: change(replace(times, key=times.key or self.key)))


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
        step_seconds = timing.estimate()
        # As many as take ROUND_SECONDS, and a window at least.
        steps = 2 * WINDOW_STEPS
        if step_seconds is not None:
            window = min(WINDOW_STEPS, math.ceil(WINDOW_SECONDS / step_seconds))
            steps = max(window, round(ROUND_SECONDS / step_seconds))
        timing.add(Round.of("probe", time_steps(steps)))
        least -= 1


def measured_once(folder: Path, key: Mapping[str, Plain], kind: type[T], measure: Callable[[], T]) -> T:
    """What was measured for ``key``, at its first call, and is kept in ``folder``; other processes wait meanwhile.

    Args:
        folder: made where it is not there; a link in its place, or of the folder above it, raises UserError.
        key: plain data.
        kind: the dataclass that is kept.
        measure: called at most once for each ``key``.
    """
    make_folder(folder, inside=folder.parents[1])
    path = _path(folder, key)
    with file_lock(path.with_suffix(".lock")):
        known = read_measured(kind, path)
        if known is not None:
            return known
        measured = measure()
        write_sealed(path, {"key": key, **typed_json.plain(measured)})
        return measured


def _path(folder: Path, key: Mapping[str, Plain]) -> Path:
    return folder / f"{hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]}.json"


def _times(path: Path) -> ProbeFile:
    """What a file holds; nothing where it is not there or damaged."""
    return read_measured(ProbeFile, path) or ProbeFile()


def _change(path: Path, change: Callable[[ProbeFile], ProbeFile]) -> None:
    with file_lock(path.with_suffix(".lock")):
        write_sealed(path, change(_times(path)).to_json())
