"""Training inside a recipe: the training loop on what is left of a checkpoint.

In a study, the state is saved while it trains, in ``<study>/trunks/<recovery id>/``; a stopped run resumes from there
with the same bits. The last state stays there: recipes of other jobs that begin with the same steps take it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression.cells import recovery_id
from trainlarge.compression.checkpoint import Checkpoint
from trainlarge.compression.layout.tokens import renumbered_batch
from trainlarge.compression.training import ParentRun, Trained, TrainingCost, TrainingPlan
from trainlarge.compression.weights import Weights
from trainlarge.config.impl import ImplConfig
from trainlarge.config.method import Method
from trainlarge.config.optim import OptimConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.data.prepare import PreparedData
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.machine.device import Implementation, choose
from trainlarge.machine.memory import free_memory
from trainlarge.tasks.step import Step, step_of
from trainlarge.tasks.task import Batch, Task
from trainlarge.training.clocks import Clock
from trainlarge.training.loop import Loop
from trainlarge.training.micro_batch import MORE, rows_that_fit
from trainlarge.training.module import Objective
from trainlarge.training.resume import TrainState, TrunkStates
from trainlarge.training.trunk_folder import TRUNKS

log = logging.getLogger(__name__)

PART = "recover"
"""Name of the saved states."""


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

    def train(self, plan: TrainingPlan, done: tuple[Method, ...], weights: Weights) -> Trained:
        """As ``Trainer.train``."""
        optim = replace(self.data.optim, peak_lr=plan.peak_lr, lr_rule="constant")
        model, tokens = cast(PreTrainedModel, weights.trainable()), weights.structure.tokens

        def batch_of(step: int) -> Batch:
            return cast(Batch, renumbered_batch(self.data.batch_of(step), tokens))

        objective = Objective(_own_loss, lambda _batch: torch.ones((), dtype=torch.float64))
        loop = Loop(model, objective, batch_of, optim, self.implementation, seed=0, modifiers=plan.modifiers)
        run = RecoveryRun(loop, plan, first_step=0)
        run.run(lambda: None)
        return run.result(weights, self.data.step_flops)


def _own_loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    return model(**batch).loss, torch.ones((), dtype=torch.float64)


class StudyTrainer:
    """Trains on the task and the data of the train cell that made the checkpoint, and saves its state in the study.

    Args:
        job: the compress job.
        checkpoint: a train cell's.
        task: its task.
        prepared: its data.
        implementation: how it is computed.
    """

    def __init__(
        self,
        job: RunningJob,
        checkpoint: Checkpoint,
        task: Task,
        prepared: PreparedData,
        implementation: Implementation,
    ) -> None:
        self.job, self.checkpoint, self.task, self.prepared = job, checkpoint, task, prepared
        self.implementation = implementation
        self.config: TrainConfig = checkpoint.as_train
        self.impl = job.cells[0].config.impl
        self.step: Step = step_of(self.config)
        steps = job.study.folder("train", checkpoint.id).train_record().step
        self.parent = ParentRun(steps, self.config.optim.rate)

    def train(self, plan: TrainingPlan, done: tuple[Method, ...], weights: Weights) -> Trained:
        """As ``Trainer.train``, from the newest saved state on."""
        states = TrunkStates(self.job.study.path / TRUNKS / recovery_id(self.checkpoint.id, done))
        run = RecoveryRun(self._loop(plan, weights), plan, self.parent.steps)
        if saved := states.newest(PART, at_most=plan.steps):
            run.restore(saved)
        saved_at = time.monotonic()

        def after_step() -> None:
            nonlocal saved_at
            self._report(run)
            if self.job.is_asked_to_stop or time.monotonic() - saved_at > self.impl.save_seconds:
                _save(run, states)
                saved_at = time.monotonic()
            self.job.check()

        run.run(after_step)
        _save(run, states)
        return run.result(weights, self.step.flops)

    def _loop(self, plan: TrainingPlan, weights: Weights) -> Loop:
        optim = replace(self.config.optim, peak_lr=plan.peak_lr)
        model, tokens = cast(PreTrainedModel, weights.trainable()), weights.structure.tokens

        def batch_of(step: int, rows: int = self.step.rows) -> Batch:
            batch = self.task.batch(self.prepared, self.config.seed, step, rows)
            return cast(Batch, renumbered_batch(batch, tokens))

        return Loop(
            model, Objective(self.task.loss, self.task.weight), batch_of, optim, self.implementation,
            seed=self.config.seed, micro_batch_rows=self._micro_batch_rows(model, batch_of(0, MORE)),
            modifiers=plan.modifiers,
        )  # fmt: skip

    def _micro_batch_rows(self, model: PreTrainedModel, batch: Batch) -> int:
        """As in the train stage: as many rows as fit in the memory; 0, the whole batch, where a GPU will tell."""
        given = self.impl.micro_batch_rows
        if given or self.implementation.device != "cpu" or self.step.rows < MORE:
            return given
        free = free_memory() / (self.job.cells[0].config.workers or 1)
        return rows_that_fit(model, self.task.loss, batch, self.step.rows, self.implementation.precision, free)

    def _report(self, run: RecoveryRun) -> None:
        speed = max(run.step - run.resumed_at, 1) / max(time.monotonic() - run.began, 1e-9)
        self.job.progress(
            self.job.cells[-1].id,
            step=run.step,
            steps=run.plan.steps,
            tokens_per_second=speed * self.step.tokens,
            seconds_left=(run.plan.steps - run.step) / speed,
        )


class RecoveryRun:
    """Runs the steps of one plan, with a clock.

    Args:
        loop: the model ready to train.
        plan: how.
        first_step: number of the first step, which says what its batch is.
    """

    def __init__(self, loop: Loop, plan: TrainingPlan, first_step: int) -> None:
        self.loop, self.plan, self.first_step = loop, plan, first_step
        self.clock = Clock()
        self.step, self.resumed_at = 0, 0
        self.began = time.monotonic()

    def run(self, after_step: Callable[[], None]) -> None:
        """Train to the end of the plan.

        Args:
            after_step: called after each step.
        """

        def observe(steps: int, _loss: Tensor) -> None:
            self.step = steps - self.first_step
            after_step()

        if self.step >= self.plan.steps:
            return
        self.clock.start()
        try:
            start, stop = self.first_step + self.step, self.first_step + self.plan.steps
            self.loop.run(start, stop, lambda step: self.plan.rate(step - self.first_step), observe)
        finally:
            self.pause()

    def pause(self) -> None:
        """Stop the clock when the device has done all that was asked of it."""
        self.loop.implementation.synchronize()
        self.clock.stop()

    def state(self) -> TrainState:
        """Everything that the rest of the run depends on."""
        return TrainState(self.step, self.loop.snapshot(), [], torch.empty(0), self.clock.snapshot())

    def restore(self, state: TrainState) -> None:
        """Go on from a state."""
        self.loop.restore(state.snapshot)
        self.clock = Clock.restored(state.clock)
        self.step = self.resumed_at = state.step

    def result(self, weights: Weights, step_flops: int) -> Trained:
        """The weights at the end, and what they took.

        Args:
            weights: those at the start.
            step_flops: FLOPs of a step.

        Raises:
            UserError: a weight is not finite.
        """
        self.loop.finish()
        trained = weights.taken_from(self.loop.module.model)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in trained.tensors.values()):
            raise UserError("recover.lr", self.plan.peak_lr, "smaller: training diverges at this rate")
        steps, precision = self.plan.steps, self.loop.implementation.precision
        return Trained(trained, TrainingCost(steps, steps * step_flops, self.clock.train_seconds, precision))


def _save(run: RecoveryRun, states: TrunkStates) -> None:
    was_running = run.clock.is_running
    run.pause()
    try:
        states.save(PART, run.state(), run.step)
    except OSError as error:
        # Training can continue without this state.
        log.warning("the state after step %s of recovery was not saved: %s", run.step, error)
    if was_running:
        run.clock.start()
