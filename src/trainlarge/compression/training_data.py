"""Training inside a recipe outside of a study: on batches that the caller gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression.layout.tokens import renumbered_batch
from trainlarge.compression.recovery_run import RecoveryRun
from trainlarge.compression.training import Trained, TrainingPlan
from trainlarge.compression.weights import Weights
from trainlarge.config.impl import ImplConfig
from trainlarge.config.method import Method
from trainlarge.config.optim import OptimConfig
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


class DataTrainer:
    """Trains on given batches by the loss that the model itself computes. Nothing is saved."""

    parent = None

    def __init__(self, data: TrainingData) -> None:
        self.data = data
        self.implementation = choose(replace(data.impl, compile="none", strategy="auto"))

    def train(
        self, plan: TrainingPlan, done: tuple[Method, ...], ahead: tuple[Method, ...], weights: Weights
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
        loop = Loop(model, objective, batch_of, optim, self.implementation, seed=0, modifiers=plan.modifiers)
        run = RecoveryRun(loop, plan, 0, lambda start, stop: (stop - start) * self.data.step_flops)
        run.run(lambda: None)
        return run.result(weights)
