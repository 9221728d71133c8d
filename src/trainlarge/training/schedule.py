"""The learning rate as a pure function of the step, and which part of a run budgets can share.

Every schedule is a *trunk*, which does not depend on the budget, and a *branch*, which leaves it for one budget.
Budgets of one trunk are trained together for the price of the longest trunk and all branches.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trainlarge.config.schedule import DecayShape, ScheduleConfig, ScheduleName

DECAY_SHAPES: dict[DecayShape, Callable[[float], float]] = {
    "1-sqrt": lambda done: 1 - math.sqrt(done),
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
"""Share of the peak rate left when a share ``done`` in [0, 1] of the decay is over."""


class Schedule(Protocol):
    """A learning-rate schedule; steps count from 0, rates are shares of the peak rate."""

    @property
    def shares_trunk(self) -> bool:
        """Whether cells of different budgets run in one job."""

    def trunk(self, step: int) -> float:
        """Rate on the trunk."""

    def branch_start(self, total: int) -> int:
        """First step of the branch of a budget of ``total`` steps; ``total`` when there is no branch."""

    def branch(self, step: int, total: int) -> float:
        """Rate on the branch of a budget of ``total`` steps."""


@dataclass(frozen=True)
class _DecayToTheEnd(ABC):
    """Warm-up, the peak rate, and a decay that ends with the budget."""

    warmup_steps: int
    """Steps of linear warm-up."""
    decay: Callable[[float], float]
    """One of ``DECAY_SHAPES``."""

    @abstractmethod
    def branch_start(self, total: int) -> int: ...

    def trunk(self, step: int) -> float:
        return warmup(step, self.warmup_steps)

    def branch(self, step: int, total: int) -> float:
        start = self.branch_start(total)
        return self.trunk(step) * self.decay((step - start) / (total - start))


@dataclass(frozen=True)
class Cooldown(_DecayToTheEnd):
    """Constant trunk, and a decay branch for each budget (Hägele et al. 2024, arXiv 2405.18392)."""

    decay_share: float
    """Share of a budget's steps that decay."""
    shares_trunk: bool = True

    def branch_start(self, total: int) -> int:
        return total - max(1, round(self.decay_share * total))


@dataclass(frozen=True)
class Matched(_DecayToTheEnd):
    """Warm-up and one decay that ends with the budget: a run of its own for each budget."""

    shares_trunk: bool = False

    def branch_start(self, total: int) -> int:
        return min(self.warmup_steps, total - 1)


@dataclass(frozen=True)
class Fixed:
    """One long schedule for all budgets, stopped early: as published (Li et al. 2020), with the bias that brings."""

    warmup_steps: int
    """Steps of linear warm-up."""
    horizon_steps: int
    """Step at which the decay would end."""
    decay: Callable[[float], float]
    """One of ``DECAY_SHAPES``."""
    shares_trunk: bool = True

    def trunk(self, step: int) -> float:
        if step < self.warmup_steps:
            return warmup(step, self.warmup_steps)
        whole = Matched(self.warmup_steps, self.decay)
        return whole.branch(min(step, self.horizon_steps), self.horizon_steps)

    def branch_start(self, total: int) -> int:
        return total

    def branch(self, step: int, total: int) -> float:
        return self.trunk(step)


def warmup(step: int, warmup_steps: int) -> float:
    """Linear warm-up from zero: the rate of ``step`` as a share of the one after it."""
    return min(1.0, (step + 1) / max(1, warmup_steps))


def _fixed(config: ScheduleConfig, decay: Callable[[float], float], horizon_steps: int | None) -> Schedule:
    if horizon_steps is None:
        raise ValueError("schedule=fixed needs the steps of its horizon")
    return Fixed(config.warmup_steps, horizon_steps, decay)


SCHEDULES: dict[ScheduleName, Callable[[ScheduleConfig, Callable[[float], float], int | None], Schedule]] = {
    "cooldown": lambda config, decay, _horizon: Cooldown(config.warmup_steps, decay, config.decay_share),
    "matched": lambda config, decay, _horizon: Matched(config.warmup_steps, decay),
    "fixed": _fixed,
}
"""Schedule of a group ``schedule``, its decay and the steps of its horizon, by the name that the group gives it."""


def make_schedule(config: ScheduleConfig, horizon_steps: int | None) -> Schedule:
    """The schedule that the group ``schedule`` describes.

    Args:
        horizon_steps: ``schedule.horizon`` in steps, for ``fixed``.
    """
    return SCHEDULES[config.name](config, DECAY_SHAPES[config.decay_shape], horizon_steps)


def rate_at(schedule: Schedule, step: int, *, total: int) -> float:
    """Rate of a step of a run to a budget of ``total`` steps: on the trunk, and then on its branch."""
    return schedule.trunk(step) if step < schedule.branch_start(total) else schedule.branch(step, total)


@dataclass(frozen=True)
class Branch:
    """Where one or more cells leave the trunk and where they end."""

    start: int
    """First step of the branch: the trunk's length when it leaves."""
    stop: int
    """Steps in all, trunk and branch."""
    cell_ids: tuple[str, ...]
    """Cells that end here."""


def branches(schedule: Schedule, totals: dict[str, int]) -> list[Branch]:
    """The branches of one trunk, in the order in which they leave it.

    Args:
        totals: cell id to the steps of its budget.
    """
    stops = sorted(set(totals.values()))
    return [
        Branch(schedule.branch_start(stop), stop, tuple(cell for cell, total in totals.items() if total == stop))
        for stop in stops
    ]
