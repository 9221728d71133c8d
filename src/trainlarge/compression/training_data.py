"""Training inside a recipe outside of a study: on batches that the caller gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression.layout.tokens import renumbered_batch
from trainlarge.compression.recovery_run import RecoveryRun
from trainlarge.compression.training import Target, Trained, TrainingCost, TrainingPlan
from trainlarge.compression.until import UntilScore, goal_of
from trainlarge.compression.weights import Weights
from trainlarge.config.impl import ImplConfig
from trainlarge.config.method import Method
from trainlarge.config.optim import OptimConfig
from trainlarge.errors import UserError
from trainlarge.machine.device import choose
from trainlarge.tasks.task import Batch
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
    """FLOPs of a step, for the result's ``training.flops``; 0 where they do not matter."""
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

        def loss(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
            return model(**batch).loss, one

        one = torch.ones((), dtype=torch.float64)
        objective = Objective(loss, lambda _batch: one)
        until = self._until(plan.target, plan.steps, before.steps) if plan.target else None
        modifiers = [*plan.modifiers, until] if until else plan.modifiers
        loop = Loop(model, objective, batch_of, optim, self.implementation, seed=0, modifiers=modifiers)
        step_flops, score_flops = self.data.step_flops, self.data.score_flops
        run = RecoveryRun(loop, plan, before.steps, lambda start, stop: (stop - start) * step_flops, until, score_flops)
        run.run(lambda: None)
        return run.result(weights)

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
