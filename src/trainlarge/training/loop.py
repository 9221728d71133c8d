"""The training loop: runs segments of optimizer steps with Lightning, and returns to states that it was asked to keep.

It knows nothing of studies, cells, budgets or files: who drives it decides how far it runs, and what is saved.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import pytorch_lightning as lightning
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.config.optim import OptimConfig
from trainlarge.errors import UserError
from trainlarge.machine.implementation import Implementation
from trainlarge.machine.step_time import StepTimer, Window
from trainlarge.training.modifier import Modifier
from trainlarge.training.module import BatchOf, Objective, Observer, StepBatches, TaskModule
from trainlarge.training.sharding import device_of_rank, kept_copy, placed_like, weights_like, whole
from trainlarge.training.signals import leave_signals_to_the_job

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass
class Snapshot:
    """Everything that the next steps depend on, on the CPU; of a divided model, this rank's shares on its device."""

    model: dict[str, Tensor]
    """Copies of the weights."""
    optimizer: dict[int, dict[str, Tensor]]
    """Copy of the optimizer's state: number of a parameter to its tensors. Rates follow from the step."""
    modifiers: list[dict[str, Tensor]] = field(default_factory=list)
    """State of each modifier, in their order."""

    def whole(self) -> Snapshot:
        """The snapshot as one device has it; of use on rank 0 only, but all ranks must call it together."""
        model = {name: whole(tensor) for name, tensor in self.model.items()}
        optimizer = {
            index: {entry: whole(tensor) for entry, tensor in entries.items()}
            for index, entries in self.optimizer.items()
        }
        return replace(self, model=model, optimizer=optimizer)


class Loop:
    """Trains one model segment by segment: steps ``start`` to ``stop`` at rates that a function of the step gives.

    The rates are those of a segment and no part of the loop: one loop trains a trunk and its branches, whose rates
    differ, and steps that are timed and taken back.

    Args:
        model: trained in place, from the weights that it has.
        objective: the loss of the task.
        batch_of: the batch of a step.
        optim: the group ``optim`` of the configuration, with ``peak_lr`` filled in.
        implementation: how it is computed.
        seed: seed of dropout.
        devices: devices that share the work.
        micro_batch_rows: rows that go through the model at once; 0: the whole batch.
        modifiers: what compression does to the model while it trains.

    Raises:
        UserError: for modifiers of a model that is divided between devices.
    """

    def __init__(  # noqa: PLR0913  one for each part of training
        self,
        model: PreTrainedModel,
        objective: Objective,
        batch_of: BatchOf,
        optim: OptimConfig,
        implementation: Implementation,
        *,
        seed: int,
        devices: int = 1,
        micro_batch_rows: int = 0,
        modifiers: Sequence[Modifier] = (),
    ) -> None:
        if modifiers and devices > 1 and implementation.strategy == "fsdp":
            raise UserError("impl.strategy", "fsdp", "ddp: a method that trains needs the whole model on each device")
        self.batch_of, self.implementation, self.devices, self.modifiers = batch_of, implementation, devices, modifiers
        # Whatever comes before the first fit finds the model here too: a state from the disk, an evaluation.
        model.to(device_of_rank(implementation.device))  # type: ignore[arg-type]
        for modifier in modifiers:
            modifier.start(model)
        self.module = TaskModule(
            model, objective, optim, seed, micro_batch_rows, implementation.compile != "graphs", modifiers
        )

    def run(self, start: int, stop: int, rate: Callable[[int], float], observer: Observer) -> None:
        """Run steps ``start`` to ``stop - 1``.

        Args:
            rate: learning rate of a step as a share of the peak rate.
            observer: called after each step with the number of steps done and the loss of the last one.
        """
        if stop <= start:
            return
        self.module.rate, self.module.observer = rate, observer
        self.module.train()
        is_for_gpu = self.implementation.device == "cuda"
        batches = StepBatches(self.batch_of, start, stop, is_for_gpu)
        with _only_warnings_of_consequence():
            trainer = self._trainer()
            try:
                trainer.fit(self.module, batches.loader())
            finally:
                # Lightning takes the module off the device when it ends, also by an error; evaluations want it there.
                self.module.to(trainer.strategy.root_device)

    def stop(self) -> None:
        """Stop after the current step (to be called from the observer)."""
        self.module.trainer.should_stop = True

    def snapshot(self) -> Snapshot:
        """The state now."""
        state = self.module.configure_optimizers().state_dict()["state"]
        return Snapshot(
            {name: kept_copy(tensor) for name, tensor in self.module.model.state_dict().items()},
            {
                index: {entry: kept_copy(tensor) for entry, tensor in entries.items()}
                for index, entries in state.items()
            },
            [modifier.state() for modifier in self.modifiers],
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Return to a state."""
        self.module.model.load_state_dict(weights_like(snapshot.model, self.module.model))
        optimizer = self.module.configure_optimizers()
        groups = optimizer.state_dict()["param_groups"]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            index: {entry: placed_like(tensor, parameters[index]) for entry, tensor in copy.deepcopy(entries).items()}
            for index, entries in snapshot.optimizer.items()
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        for modifier, kept in zip(self.modifiers, snapshot.modifiers, strict=True):
            modifier.restore(kept)

    def finish(self) -> None:
        """Take back what modifiers have attached to the model: it is trained no further."""
        for modifier in reversed(self.modifiers):
            modifier.finish(self.module.model)

    def timed(self, steps: int) -> list[Window]:
        """Windows of so many steps, at least one, which are taken back.

        They run on the module itself, since a copy may be compiled again; ``micro_batch_rows`` stays as small as it had
        to become.
        """
        before, timer = self.snapshot(), StepTimer(self.implementation.synchronize)
        # One step more than asked for: the first one also starts the trainer.
        self.run(0, steps + 1, lambda _step: 1.0, lambda _step, _loss: timer.step())
        self.restore(before)
        return timer.take(at_least_one=True)

    def _strategy(self) -> str | Strategy:
        """Lightning's strategy; that of one device is its own choice."""
        return STRATEGIES[self.implementation.strategy](self.devices) if self.devices > 1 else "auto"

    def _trainer(self) -> lightning.Trainer:
        trainer = lightning.Trainer(
            barebones=True,
            accelerator=self.implementation.device,
            devices=self.devices,
            strategy=self._strategy(),
            precision=_PRECISIONS[self.implementation.precision],
            max_epochs=1,
            # Our own job requeues; Lightning must not.
            plugins=[LightningEnvironment()],
        )
        leave_signals_to_the_job(trainer)
        return trainer


STRATEGIES: dict[str, Callable[[int], str | Strategy]] = {
    "ddp": lambda _devices: "ddp",
    "fsdp": lambda devices: ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1),
}
"""Lightning's strategy of so many devices, by the name that ``impl.strategy`` gives it."""


@contextmanager
def _only_warnings_of_consequence() -> Iterator[None]:
    """Lightning repeats the same lines for every segment; they are left out while the block runs."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
