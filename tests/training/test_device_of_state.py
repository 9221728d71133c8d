"""The optimizer's state is where its parameters are, on any device and whatever Lightning moves.

The device ``meta`` stands for a GPU: it has no numbers, but Lightning and torch move modules and states there alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor

from trainlarge.config.schema import TrainConfig
from trainlarge.machine.device import choose
from trainlarge.sweep.store import Study
from trainlarge.tasks import masked_lm
from trainlarge.training import context as training_context
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext
from trainlarge.training.curve import LossBuffer
from trainlarge.training.loop import Loop, Snapshot
from trainlarge.training.module import TaskModule

Tiny = Callable[..., TrainConfig]


def constant(step: int) -> float:
    return 1.0


def nothing(step: int, loss: Tensor) -> None: ...


def places(loop: Loop) -> set[str]:
    """Devices of the weights and of each entry of the optimizer's state."""
    state = loop.module.configure_optimizers().state
    tensors = [tensor for entries in state.values() for tensor in entries.values()]
    assert len(tensors) == 3 * len(list(loop.module.parameters())), "a step and two moments of each"
    return {tensor.device.type for tensor in (*loop.module.parameters(), *tensors)}


@pytest.fixture
def made(tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Loop]:
    """Makes what trains a tiny model."""
    monkeypatch.setattr(training_context, "settle", lambda *arguments, **options: 0.01)
    # A given micro-batch: to measure one, gradients are made, and such weights do not move to ``meta``.
    return lambda: TrainContext(study, STAGE.resolve(tiny("impl.precision=fp32", "impl.micro_batch_rows=16"))).loop


@pytest.fixture
def after_three_steps(made: Callable[[], Loop]) -> Snapshot:
    """The state of another process, as it is read from the disk."""
    loop = made()
    loop.run(0, 3, constant, nothing)
    return loop.snapshot()


@contextmanager
def same_parameters() -> Iterator[None]:
    """Else a move to ``meta`` makes new parameters, of which the optimizer does not know; one to a GPU does not."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


class MetaStrategy(SingleDeviceStrategy):
    """Lightning's own moves to a device, as to a GPU; there is no way back from this one."""

    def __init__(self) -> None:
        super().__init__(device="meta")

    def setup_environment(self) -> None: ...

    def model_to_device(self) -> None:
        with same_parameters():
            super().model_to_device()

    def reduce(self, *length: Any, **how: Any) -> Tensor:
        """Lightning adds up the lengths of the batches with it, to see whether there are any."""
        return torch.ones(())

    def teardown(self) -> None: ...


def test_the_state_follows_the_weights_that_lightning_moves_after_it_was_restored(
    made: Callable[[], Loop], after_three_steps: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = made()
    loop.restore(after_three_steps)
    assert places(loop) == {"cpu"}
    seen: list[set[str]] = []
    monkeypatch.setattr(Loop, "_strategy", lambda loop: MetaStrategy())
    monkeypatch.setattr(TaskModule, "training_step", lambda *batch: seen.append(places(loop)))
    loop.run(3, 5, constant, nothing)
    assert seen == [{"meta"}] * 2


def test_a_state_comes_back_to_the_device_of_the_job_before_anything_is_trained(
    made: Callable[[], Loop], after_three_steps: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_context, "choose", lambda *arguments: replace(choose(*arguments), device="meta"))
    with same_parameters():
        loop = made()
    loop.restore(after_three_steps)
    assert places(loop) == {"meta"}


def test_a_state_that_is_kept_is_on_the_cpu_and_no_view(made: Callable[[], Loop]) -> None:
    loop = made()
    loop.run(0, 1, constant, nothing)
    kept = loop.snapshot()
    before = [tensor.clone() for entries in kept.optimizer.values() for tensor in entries.values()]
    loop.run(1, 2, constant, nothing)
    after = [tensor for entries in kept.optimizer.values() for tensor in entries.values()]
    assert {tensor.device.type for tensor in (*kept.model.values(), *after)} == {"cpu"}
    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("is_cleared", [False, True])
def test_losses_that_were_read_from_the_disk_go_on_where_new_ones_are(is_cleared: bool) -> None:
    losses = LossBuffer(torch.ones(3))
    if is_cleared:
        losses.clear()
    losses.append(torch.zeros((), device="meta"))
    assert losses.values().device.type == "meta" and len(losses.values()) == (1 if is_cleared else 4)


def test_masks_are_drawn_on_the_cpu_and_then_brought_to_the_device(
    made: Callable[[], Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's generator gives other numbers for the same seed."""
    drawn: list[str] = []
    used: list[str] = []
    mask_tokens = masked_lm.mask_tokens

    def noted(ids: Tensor, count: int, generator: torch.Generator, **tokens: int) -> dict[str, Tensor]:
        drawn.extend([ids.device.type, generator.device.type])
        return mask_tokens(ids, count, generator, **tokens)

    loop = made()
    monkeypatch.setattr(masked_lm, "mask_tokens", noted)
    monkeypatch.setattr(Loop, "_strategy", lambda loop: MetaStrategy())
    monkeypatch.setattr(
        TaskModule,
        "training_step",
        lambda module, batch, index: used.extend(tensor.device.type for tensor in batch[1].values()),
    )
    loop.run(0, 2, constant, nothing)
    assert drawn == ["cpu"] * 4 and used == ["meta"] * 6
