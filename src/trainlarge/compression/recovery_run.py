"""One recovery training: the training loop over the steps of a plan, with a clock, a curve and states to save."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainlarge.compression.training import TeacherNote, Trained, TrainingCost, TrainingPlan
from trainlarge.compression.until import UntilScore
from trainlarge.compression.weights import Weights
from trainlarge.errors import UserError
from trainlarge.sweep.records import RecoveryRow
from trainlarge.training.clocks import Clock
from trainlarge.training.curve import LossBuffer
from trainlarge.training.loop import Loop
from trainlarge.training.resume import TrainState

FlopsOf = Callable[[int, int], int]
CURVE_POINTS = 100
"""Most rows of a curve, spread evenly over the steps."""


@dataclass(frozen=True)
class RunFlops:
    """FLOPs of what a recovery training computes."""

    steps: FlopsOf
    """Of the steps ``start`` to ``stop - 1``, forward and backward."""
    check: int = 0
    """Of one look at the score."""
    teacher: FlopsOf = lambda _start, _stop: 0
    """Of the teacher's forward passes in the steps ``start`` to ``stop - 1``."""


class RecoveryRun:
    """Runs the steps of one plan.

    Args:
        loop: the model ready to train.
        plan: how.
        first_step: number of the first step, which says what its batch is.
        flops_of: what is computed takes.
        until: a modifier of the loop that ends it early; None: it takes all its steps.
        teacher: who teaches; None: nobody.
    """

    def __init__(
        self,
        loop: Loop,
        plan: TrainingPlan,
        first_step: int,
        flops_of: RunFlops,
        until: UntilScore | None = None,
        teacher: TeacherNote | None = None,
    ) -> None:
        self.loop, self.plan, self.first_step, self.flops_of = loop, plan, first_step, flops_of
        self.until, self.teacher = until, teacher
        self.clock = Clock()
        self.step = 0
        self.curve: list[RecoveryRow] = []
        self._losses = LossBuffer()

    def run(self, after_step: Callable[[], None]) -> None:
        """Train to the end of the plan, or to its target.

        Args:
            after_step: called after each step.
        """

        def observe(steps: int, loss: Tensor) -> None:
            self.step = steps - self.first_step
            self._losses.append(loss)
            if self.step % math.ceil(self.plan.steps / CURVE_POINTS) == 0 or self.is_over:
                self._add_to_curve()
            if self.is_over:
                self.loop.stop()
            after_step()

        if self.is_over:
            return
        self.clock.start()
        try:
            if self.until and not self.until.checked:
                self.until.look(self.loop.module.model)
                if self.is_over:
                    return
            start, stop = self.first_step + self.step, self.first_step + self.plan.steps
            self.loop.run(start, stop, lambda step: self.plan.rate(step - self.first_step), observe)
        finally:
            self.pause()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train."""
        return self.step >= self.plan.steps or (self.until is not None and self.until.is_reached)

    @property
    def flops(self) -> int:
        """FLOPs so far, with those of the teacher, of looks at the score, and of one at that of the checkpoint."""
        looks = self.until.checked + 1 if self.until else 0
        done = self.first_step, self.first_step + self.step
        return self.flops_of.steps(*done) + self.teacher_flops + looks * self.flops_of.check

    @property
    def teacher_flops(self) -> int:
        """FLOPs of the teacher so far."""
        return self.flops_of.teacher(self.first_step, self.first_step + self.step)

    def _add_to_curve(self) -> None:
        loss = float(self._losses.values().mean())
        row = RecoveryRow(
            step=self.step,
            flops=self.flops,
            train_seconds=self.clock.seconds(),
            train_loss=loss if math.isfinite(loss) else None,
            lr=self.plan.peak_lr * self.plan.rate(self.step - 1),
        )
        self.curve.append(row)
        self._losses.clear()

    def pause(self) -> None:
        """Stop the clock when the device has done all that was asked of it."""
        self.loop.implementation.synchronize()
        self.clock.stop()

    def state(self) -> TrainState:
        """Everything that the rest of the run depends on."""
        rows = [row.to_json() for row in self.curve]
        return TrainState(self.step, self.loop.snapshot(), rows, self._losses.values(), self.clock.snapshot())

    def restore(self, state: TrainState) -> None:
        """Continue from a state."""
        self.loop.restore(state.snapshot)
        self.clock = Clock.restored(state.clock)
        self.step, self.curve = state.step, [RecoveryRow.from_json(row) for row in state.rows]
        self._losses = LossBuffer(state.losses)

    def result(self, weights: Weights) -> Trained:
        """The weights at the end, and what they took.

        Args:
            weights: those at the start.

        Raises:
            UserError: a weight is not finite.
        """
        self.loop.finish()
        trained = weights.taken_from(self.loop.module.model)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in trained.tensors.values()):
            raise UserError("recover.lr", self.plan.peak_lr, "smaller: training diverges at this rate")
        cost = TrainingCost(
            self.step,
            self.flops,
            self.clock.train_seconds,
            self.loop.implementation.precision,
            tuple(self.curve),
            self.until.result if self.until else None,
            replace(self.teacher, flops=self.teacher_flops) if self.teacher else None,
        )
        return Trained(trained, cost)
