"""The curve of a run: one row of clocks, training loss and evaluation at each of a few steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trainlarge.sweep.records import CurveRow
from trainlarge.tasks.evaluation import Evaluation
from trainlarge.tasks.step import Step
from trainlarge.training.clocks import Clock
from trainlarge.training.run_timing import RunTiming

FIRST_STEP = 25
"""The first point of every curve."""


class DivergedError(RuntimeError):
    """The loss is no number any more."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"the loss is not a number any more at step {step}; a smaller optim.lr may help")


def is_curve_step(step: int, points_per_doubling: int) -> bool:
    """Whether the curve has a point at ``step``: 25, then ``points_per_doubling`` points each time the steps double.

    The points do not depend on the budget, so that cells which share a trunk share them too.
    """
    if step < FIRST_STEP:
        return False
    position = round(math.log2(step / FIRST_STEP) * points_per_doubling)
    return step == round(FIRST_STEP * 2 ** (position / points_per_doubling))


class LossBuffer:
    """Training losses, one per step, in one piece of memory on the device of the last.

    Kept as one tensor each, small lasting blocks between the large short-lived ones of each step would keep freed
    memory from being used again: the process of a model of 200,000 parameters grew to 5 GB.
    """

    def __init__(self, losses: Tensor | None = None) -> None:
        self._values = torch.empty(0) if losses is None else losses.clone()
        self._count = len(self._values)

    def append(self, loss: Tensor) -> None:
        """Add a scalar; nothing is read back from the device."""
        # Losses that were read from the disk are on the CPU; adding to them there would wait for the device each time.
        if self._count == len(self._values) or self._values.device != loss.device:
            grown = torch.empty(max(1024, 2 * self._count), device=loss.device)
            grown[: self._count] = self.values()
            self._values = grown
        self._values[self._count] = loss
        self._count += 1

    def values(self) -> Tensor:
        """All losses, [steps]."""
        return self._values[: self._count]

    def clear(self) -> None:
        """Forget them."""
        self._count = 0


@dataclass
class Curve:
    """Rows so far, and the training loss since the last one."""

    step: Step
    """What a step takes in."""
    timing: RunTiming
    """How its steps are computed."""
    rows: list[CurveRow] = field(default_factory=list)
    """Points so far, in the order of steps."""
    losses: LossBuffer = field(default_factory=LossBuffer)
    """Training losses since the last row."""

    def retime(self, timing: RunTiming) -> None:
        """Continue with ``timing``, and give the rows that were computed in its way their modelled seconds by it."""
        self.timing = timing
        self.rows = [
            replace(row, model_seconds=timing.model_seconds(row.step)) if row.step > timing.since else row
            for row in self.rows
        ]

    def add(self, steps: int, rate: float, part: str, evaluation: Evaluation, clock: Clock) -> None:
        """Append the row after ``steps`` steps.

        Raises:
            DivergedError: when a loss is not finite.
        """
        losses = self.losses.values()
        train_loss = losses.mean().item() if len(losses) else None
        if not math.isfinite(evaluation.loss) or not math.isfinite(train_loss or 0.0):
            raise DivergedError(steps)
        last = self.rows[-1] if self.rows else None
        row = CurveRow(
            step=steps,
            tokens=self.step.tokens_of(0, steps),
            flops=self.step.flops_of(0, steps),
            executed_flops=executed_flops(last, steps, self.step),
            train_seconds=clock.train_seconds,
            model_seconds=self.timing.model_seconds(steps),
            wall_seconds=clock.wall(),
            train_loss=train_loss,
            scores=evaluation.metrics,
            lr=rate,
            part=part,
        )
        self.rows.append(row)
        self.losses.clear()


def executed_flops(last: CurveRow | None, steps: int, step: Step) -> int | float | None:
    """FLOPs computed in ``steps`` steps, those since the row ``last`` as now; None behind a row that does not know."""
    if last is None:
        return step.executed_flops_of(0, steps)
    if last.executed_flops is None:
        return None
    return last.executed_flops + step.executed_flops_of(last.step, steps)
