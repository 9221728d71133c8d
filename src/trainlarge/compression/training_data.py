"""Training inside a recipe outside of a study: on batches that the caller gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression.distillation import Distillation, Teacher
from trainlarge.compression.layout.tokens import renumbered_batch
from trainlarge.compression.recovery_run import RecoveryRun, RunFlops
from trainlarge.compression.teachers import PASSES
from trainlarge.compression.training import Target, Trained, TrainingCost, TrainingPlan
from trainlarge.compression.until import UntilScore, goal_of
from trainlarge.compression.weights import Weights
from trainlarge.config.impl import ImplConfig
from trainlarge.config.method import Method
from trainlarge.config.optim import OptimConfig
from trainlarge.config.recover import PARENT_AS_TEACHER, Distill
from trainlarge.errors import UserError
from trainlarge.machine.device import choose
from trainlarge.models.capture import Capture
from trainlarge.tasks.task import Batch
from trainlarge.training.compiling import Loss
from trainlarge.training.loop import Loop
from trainlarge.training.module import Objective


@dataclass(frozen=True)
class TrainingData:
    """What a recipe trains on where a model is compressed outside of a study."""

    batch_of: Callable[[int], dict[str, Tensor]]
    """The batch of a step, which counts from 0: arguments of the model's forward pass, with ``labels``, rows first."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Settings of the optimizer; the rate is that of the method."""
    impl: ImplConfig = field(default_factory=ImplConfig)
    """How it is computed: device, precision, threads."""
    step_flops: int = 0
    """FLOPs of a step, for the result's ``training.flops``; 0 where they do not matter. A teacher's forward pass is
    charged a third of them."""
    score: Callable[[nn.Module], float] | None = None
    """How good a model is, for ``recover.budget='until 0.995 dense'``."""
    higher_is_better: bool = False
    """Whether a larger ``score`` is a better one."""
    score_flops: int = 0
    """FLOPs of one ``score``."""


class DataTrainer:
    """Trains on given batches by the loss that the model itself computes. Nothing is saved.

    Args:
        data: the batches.
        dense: the model before compression.
    """

    parent, seed = None, 0

    def __init__(self, data: TrainingData, dense: Weights) -> None:
        self.data, self.dense = data, dense
        self.implementation = choose(replace(data.impl, compile="none", strategy="auto"))

    def early(
        self, steps: int, like: Weights, is_redrawn: bool, done: tuple[Method, ...], ahead: tuple[Method, ...]
    ) -> Weights:
        """As ``Trainer.early``: nothing is known of the training that made the model."""
        raise LookupError("a recipe that goes back to early weights is refused before")

    def train(
        self,
        plan: TrainingPlan,
        done: tuple[Method, ...],
        ahead: tuple[Method, ...],
        weights: Weights,
        before: TrainingCost,
    ) -> Trained:
        """As ``Trainer.train``."""
        optim = replace(self.data.optim, peak_lr=plan.peak_lr, lr_rule="constant")
        model, tokens = cast(PreTrainedModel, weights.trainable()), weights.structure.tokens

        def batch_of(step: int) -> Batch:
            return renumbered_batch(self.data.batch_of(step), tokens)

        distillation = self._distillation(plan.distill, weights, before.steps, plan.steps) if plan.distill else None
        loss = distillation.student_loss if distillation else _own_loss
        objective = Objective(loss, lambda _batch: torch.ones((), dtype=torch.float64))
        until = self._until(plan.target, plan.steps, before.steps) if plan.target else None
        modifiers = [*plan.modifiers, *(part for part in (distillation, until) if part)]
        loop = Loop(model, objective, batch_of, optim, self.implementation, seed=0, modifiers=modifiers)
        note = distillation.note if distillation else None
        run = RecoveryRun(loop, plan, before.steps, self._flops(is_taught=note is not None), until, note)
        run.run(lambda: None)
        return run.result(weights)

    def _flops(self, is_taught: bool) -> RunFlops:
        step, of_teacher = self.data.step_flops, self.data.step_flops // PASSES if is_taught else 0
        return RunFlops(
            lambda start, stop: (stop - start) * step,
            self.data.score_flops,
            lambda start, stop: (stop - start) * of_teacher,
        )

    def _distillation(self, method: Distill, weights: Weights, first_step: int, steps: int) -> Distillation:
        if method.teacher != PARENT_AS_TEACHER:
            raise UserError("recover.teacher", method.teacher, "parent outside of a study, which has other train cells")
        model = cast(PreTrainedModel, self.dense.trainable().eval().requires_grad_(False))
        teacher = Teacher(method.teacher, model, self.dense.encoder)
        return Distillation(method, weights, teacher, _loss_through, first_step, steps)

    def _until(self, target: Target, steps: int, first_step: int) -> UntilScore:
        score, higher = self.data.score, self.data.higher_is_better
        if score is None:
            raise UserError("training.score", None, "the score of a model, since recover.budget is a share of one")
        return UntilScore(
            score,
            lambda: goal_of(target.dense_share, score(self.dense.trainable()), higher),
            higher,
            first_step=first_step,
            steps=steps,
            checks=target.checks,
        )


def _own_loss(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss that the model itself computes; every batch has the same weight."""
    return model(**batch).loss, torch.ones((), dtype=torch.float64)


def _loss_through(capture: Capture) -> Loss:
    """``_own_loss``, with what the model computes on the way kept."""
    return lambda model, batch: (capture.loss_of(model, batch), torch.ones((), dtype=torch.float64))
