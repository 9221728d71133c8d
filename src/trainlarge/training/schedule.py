"""The learning rate as a pure function of the step, and which part of a run budgets can share.

Every schedule is a *trunk*, which does not depend on the budget, and a *branch*, which leaves it for one budget.
Budgets of one trunk are trained together for the price of the longest trunk and all branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from trainlarge.errors import UserError

DECAY_SHAPES: dict[str, Callable[[float], float]] = {
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
class Cooldown:
    """Constant trunk, and a decay branch for each budget (Hägele et al. 2024, arXiv 2405.18392)."""

    warmup_steps: int
    """Steps of linear warm-up."""
    decay_share: float
    """Share of a budget's steps that decay."""
    decay: Callable[[float], float]
    """One of ``DECAY_SHAPES``."""
    shares_trunk: bool = True

    def trunk(self, step: int) -> float:
        return warmup(step, self.warmup_steps)

    def branch_start(self, total: int) -> int:
        return total - max(1, round(self.decay_share * total))

    def branch(self, step: int, total: int) -> float:
        start = self.branch_start(total)
        return self.trunk(step) * self.decay((step - start) / (total - start))


@dataclass(frozen=True)
class Matched:
    """Warm-up and one decay that ends with the budget: a run of its own for each budget."""

    warmup_steps: int
    """Steps of linear warm-up."""
    decay: Callable[[float], float]
    """One of ``DECAY_SHAPES``."""
    shares_trunk: bool = False

    def trunk(self, step: int) -> float:
        return warmup(step, self.warmup_steps)

    def branch_start(self, total: int) -> int:
        return min(self.warmup_steps, total - 1)

    def branch(self, step: int, total: int) -> float:
        start = self.branch_start(total)
        return self.trunk(step) * self.decay((step - start) / (total - start))


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
        return (
            Matched(self.warmup_steps, self.decay).branch(min(step, self.horizon_steps), self.horizon_steps)
            if step >= self.warmup_steps
            else warmup(step, self.warmup_steps)
        )

    def branch_start(self, total: int) -> int:
        return total

    def branch(self, step: int, total: int) -> float:
        return self.trunk(step)


def warmup(step: int, warmup_steps: int) -> float:
    """Linear warm-up from zero: the rate of ``step`` as a share of the one after it."""
    return min(1.0, (step + 1) / max(1, warmup_steps))


def _cooldown(config: dict[str, Any], horizon_steps: int | None) -> Schedule:
    return Cooldown(config["warmup_steps"], config["decay_share"], _shape(config))


def _matched(config: dict[str, Any], horizon_steps: int | None) -> Schedule:
    return Matched(config["warmup_steps"], _shape(config))


def _fixed(config: dict[str, Any], horizon_steps: int | None) -> Schedule:
    if horizon_steps is None:
        raise UserError(
            "schedule.horizon", config["horizon"], "the budget at which schedule=fixed ends, as in '1e15 FLOPs'"
        )
    return Fixed(config["warmup_steps"], horizon_steps, _shape(config))


SCHEDULES: dict[str, Callable[[dict[str, Any], int | None], Schedule]] = {
    "cooldown": _cooldown,
    "matched": _matched,
    "fixed": _fixed,
}


def make_schedule(config: dict[str, Any], horizon_steps: int | None) -> Schedule:
    """The schedule that the group ``schedule`` describes.

    Args:
        horizon_steps: ``schedule.horizon`` in steps, for ``fixed``.

    Raises:
        UserError: for an unknown name, shape or share.
    """
    if config["name"] not in SCHEDULES:
        raise UserError("schedule", config["name"], ", ".join(SCHEDULES))
    if config["warmup_steps"] < 0:
        raise UserError("schedule.warmup_steps", config["warmup_steps"], "0 or more")
    if not 0 < config["decay_share"] < 1:
        raise UserError("schedule.decay_share", config["decay_share"], "a number in (0, 1)")
    return SCHEDULES[config["name"]](config, horizon_steps)


def _shape(config: dict[str, Any]) -> Callable[[float], float]:
    if config["decay_shape"] not in DECAY_SHAPES:
        raise UserError("schedule.decay_shape", config["decay_shape"], ", ".join(DECAY_SHAPES))
    return DECAY_SHAPES[config["decay_shape"]]


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
