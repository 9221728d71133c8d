"""Runs stretches of steps with the Lightning trainer, and remembers a state to come back to."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as lightning
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor

from trainlarge.data.blocks import Blocks
from trainlarge.machine.device import Implementation
from trainlarge.machine.step_time import StepTimer, Window
from trainlarge.training.module import MaskedLanguageModule, Observer, StepBatches
from trainlarge.training.sharding import kept_copy, own_device, placed_like, weights_like, whole
from trainlarge.training.signals import leave_signals_to_the_job

_PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed"}


@dataclass
class Snapshot:
    """Weights and optimizer state after some step, on the CPU; of a divided model, this rank's shares on its device."""

    model: dict[str, Tensor]
    """Copies of the weights."""
    optimizer: dict[int, dict[str, Tensor]]
    """Copy of the optimizer's state: number of a parameter to its tensors. Rates follow from the step."""

    def whole(self) -> Snapshot:
        """The snapshot as one device has it; of use on rank 0 only, but all ranks must call it together."""
        model = {name: whole(tensor) for name, tensor in self.model.items()}
        optimizer = {
            index: {entry: whole(tensor) for entry, tensor in entries.items()}
            for index, entries in self.optimizer.items()
        }
        return Snapshot(model, optimizer)


class Stretches:
    """Trains one module stretch by stretch: steps ``start`` to ``stop`` at rates that a function of the step gives."""

    def __init__(
        self,
        module: MaskedLanguageModule,
        blocks: Blocks,
        rows: int,
        implementation: Implementation,
        impl: dict[str, Any],
    ) -> None:
        self.module, self.blocks, self.rows = module, blocks, rows
        self.implementation, self.impl = implementation, impl
        # Whatever comes before the first fit finds the model here too: a state from the disk, an evaluation.
        self.module.to(own_device(implementation.device))

    def run(self, start: int, stop: int, rate: Callable[[int], float], observer: Observer) -> None:
        """Run steps ``start`` to ``stop - 1``; ``observer`` is told after each."""
        if stop <= start:
            return
        self.module.rate, self.module.observer = rate, observer
        self.module.train()
        is_for_gpu = self.implementation.device == "cuda"
        batches = StepBatches(self.blocks, self.module.masking, self.rows, start, stop, is_for_gpu)
        with _quiet():
            trainer = self._trainer()
            try:
                trainer.fit(self.module, batches.loader())
            finally:
                # Lightning takes the module off the device when it ends, also by an error; evaluations want it there.
                self.module.to(trainer.strategy.root_device)

    def stop(self) -> None:
        """To be called by the observer: the step that it was told of is the last one of this stretch."""
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
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a state."""
        self.module.model.load_state_dict(weights_like(snapshot.model, self.module.model))
        optimizer = self.module.configure_optimizers()
        groups = optimizer.state_dict()["param_groups"]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        state = {
            index: {entry: placed_like(tensor, parameters[index]) for entry, tensor in copy.deepcopy(entries).items()}
            for index, entries in snapshot.optimizer.items()
        }
        optimizer.load_state_dict({"state": state, "param_groups": groups})

    def timed(self, steps: int) -> list[Window]:
        """Windows of so many steps, at least one, which are taken back.

        They run on the module itself, since a copy may be compiled anew; ``micro_batch_rows`` stays as small as it had
        to become.
        """
        before, timer = self.snapshot(), StepTimer(self.implementation.synchronize)
        # One step more than asked for: the first one also starts the trainer.
        self.run(0, steps + 1, lambda step: 1.0, lambda step, loss: timer.step())
        self.restore(before)
        return timer.take(at_least_one=True)

    def _strategy(self) -> Any:
        devices = self.impl["devices"]
        return STRATEGIES[self.implementation.strategy](devices) if devices > 1 else "auto"

    def _trainer(self) -> lightning.Trainer:
        trainer = lightning.Trainer(
            barebones=True,
            accelerator=self.implementation.device,
            devices=self.impl["devices"],
            strategy=self._strategy(),
            precision=_PRECISIONS[self.implementation.precision],
            max_epochs=1,
            # Our own job requeues; Lightning must not.
            plugins=[LightningEnvironment()],
        )
        leave_signals_to_the_job(trainer)
        return trainer


def _fsdp(devices: int) -> ModelParallelStrategy:
    return ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1)


STRATEGIES: dict[str, Callable[[int], Any]] = {"ddp": lambda devices: "ddp", "fsdp": _fsdp}
"""Lightning's strategy of so many devices, by the name that ``impl.strategy`` gives it."""


class _quiet:
    """Lightning says the same lines for every stretch; only its warnings of consequence stay."""

    def __enter__(self) -> None:
        self._catch = warnings.catch_warnings()
        self._catch.__enter__()
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        self._levels = {name: logging.getLogger(name).level for name in ("pytorch_lightning", "lightning.pytorch")}
        for name in self._levels:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *exception: Any) -> None:
        self._catch.__exit__(*exception)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
