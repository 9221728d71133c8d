"""The unit in which run length and branch points are measured: optimizer steps, or milliseconds of training.

A position is on the trunk or a branch and grows from 0; schedules, branches and saved states are in its unit. On the
real clock the decay follows the seconds, so that it ends with the budget however long the steps take, as in Geiping &
Goldstein 2022 (arXiv 2212.14034, section 4.3); only the warm-up is counted in steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from trainlarge.config.budget import SECONDS, Budget, parse_budget
from trainlarge.config.schema import Clocks, TrainConfig
from trainlarge.config.typed_json import plain
from trainlarge.errors import UserError
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.step_times import CellSteps, read_measured
from trainlarge.sweep.store import CellFolder
from trainlarge.tasks.step import Pace, Step, steps_in
from trainlarge.training.clocks import Clock
from trainlarge.training.schedule import Schedule, make_schedule, warmup

MILLISECONDS = 1000
"""Positions in a second."""
NO_END = 2**40
"""Steps of a segment that something else will end."""


class RunLength(Protocol):
    """How far a run is, and how far it goes."""

    @property
    def schedule(self) -> Schedule:
        """Rates and branches over positions."""

    def total(self, budget: Budget, cell: CellFolder) -> int:
        """Position at which the cell of that budget ends."""

    def fix(self, total: int, cell: CellFolder) -> None:
        """Keep with the cell what ``total`` gave, where it depends on a step time that may change."""

    def position(self, step: int, clock: Clock) -> int:
        """Where a run is after ``step`` steps."""

    def rate(self, step: int, position: int, total: int | None) -> float:
        """Share of the peak rate of the step taken at ``position``: on the trunk, or on the branch to ``total``."""

    def last_step(self, stop: int) -> int:
        """Step after which a segment to the position ``stop`` ends, unless something else ends it before."""

    def steps(self, step: int, position: int, total: int) -> int:
        """Steps that a run to ``total`` will have, as it looks after ``step`` steps."""


@dataclass(frozen=True)
class InSteps:
    """Positions are steps; a budget in seconds is as many as the steady-state step time makes of it."""

    schedule: Schedule
    step: Step
    """What a step takes in."""
    step_seconds: float
    """Steady-state step time."""
    epoch_rows: int
    """Rows of the training data in use."""

    def total(self, budget: Budget, cell: CellFolder) -> int:
        """By the step time that was fixed for the cell, on any device; before that by the present one."""
        kept = read_measured(CellSteps, cell.steps)
        if kept is not None:
            return kept.steps
        return steps_in(budget, self.step, Pace(self.step_seconds, self.epoch_rows))

    def fix(self, total: int, cell: CellFolder) -> None:
        if read_measured(CellSteps, cell.steps) is None:
            write_sealed(cell.steps, plain(CellSteps(total, self.step_seconds)))

    def position(self, step: int, clock: Clock) -> int:
        return step

    def rate(self, step: int, position: int, total: int | None) -> float:
        return self.schedule.trunk(step) if total is None else self.schedule.branch(step, total)

    def last_step(self, stop: int) -> int:
        return stop

    def steps(self, step: int, position: int, total: int) -> int:
        return total


@dataclass(frozen=True)
class InMilliseconds:
    """Positions are milliseconds of training."""

    schedule: Schedule
    warmup_steps: int
    """Steps of linear warm-up."""

    def total(self, budget: Budget, cell: CellFolder) -> int:
        return milliseconds(budget)

    def fix(self, total: int, cell: CellFolder) -> None: ...

    def position(self, step: int, clock: Clock) -> int:
        return int(MILLISECONDS * clock.seconds())

    def rate(self, step: int, position: int, total: int | None) -> float:
        planned = self.schedule.trunk(position) if total is None else self.schedule.branch(min(position, total), total)
        return warmup(step, self.warmup_steps) * planned

    def last_step(self, stop: int) -> int:
        return NO_END

    def steps(self, step: int, position: int, total: int) -> int:
        return round(step * total / max(position, 1))


def milliseconds(budget: Budget, key: str = "budget") -> int:
    """A budget in seconds as a position.

    Raises:
        UserError: for another unit, or less than a millisecond.
    """
    if budget.unit != SECONDS or budget.value * MILLISECONDS < 1:
        raise UserError(key, budget, "a budget in seconds of at least a millisecond, with clock=real")
    return round(budget.value * MILLISECONDS)


def make_run_length(config: TrainConfig, step: Step, step_seconds: float, epoch_rows: int) -> RunLength:
    """The run length of a train cell, with its schedule.

    Args:
        step: what a step takes in.
        step_seconds: steady-state step time.
        epoch_rows: rows of the training data in use.
    """
    return RUN_LENGTHS[config.clock](config, step, step_seconds, epoch_rows)


def _modelled(config: TrainConfig, step: Step, step_seconds: float, epoch_rows: int) -> RunLength:
    text, key, pace = config.schedule.horizon, "schedule.horizon", Pace(step_seconds, epoch_rows)
    horizon = None if text is None else steps_in(parse_budget(text, key), step, pace, key)
    return InSteps(make_schedule(config.schedule, horizon), step, step_seconds, epoch_rows)


def _real(config: TrainConfig, _step: Step, _step_seconds: float, _epoch_rows: int) -> RunLength:
    schedule, key = config.schedule, "schedule.horizon"
    horizon = None if schedule.horizon is None else milliseconds(parse_budget(schedule.horizon, key), key)
    return InMilliseconds(make_schedule(replace(schedule, warmup_steps=0), horizon), schedule.warmup_steps)


RUN_LENGTHS: dict[Clocks, Callable[[TrainConfig, Step, float, int], RunLength]] = {"modelled": _modelled, "real": _real}
"""Run length by the name that ``clock`` gives it."""
