"""How many rows go through the model at once on the CPU, where running out of memory kills the process.

On a GPU the first step that does not fit raises an error, the micro-batch is halved and the step taken again. The
system gives a CPU process no such sign, so there the need is measured on a few rows and compared with what is free.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from trainlarge.machine.implementation import Implementation
from trainlarge.machine.memory import free_memory
from trainlarge.training.compiling import Loss

USED_SHARE = 0.5
"""Share of the free memory that may be planned for: the rest is for gradients of activations and for others."""
GRADIENT_AND_MOMENTS_BYTES = 12
"""Bytes that a parameter still takes in training: gradient and the two moments of AdamW, all fp32."""
FEW, MORE = 2, 4
"""Rows on which the need is measured; what does not grow with the rows, such as cast weights, cancels out."""


def fitting_rows(rows: int, row_bytes: float, model_bytes: float, free_bytes: float) -> int:
    """Rows of a micro-batch: the whole batch if that fits, else the largest of nearly equal parts that do, at least 1.

    Args:
        rows: rows of the effective batch.
        row_bytes: what a row takes between forward and backward pass.
        model_bytes: what gradients and optimizer will take.
        free_bytes: memory that this job may use.
    """
    room = max(USED_SHARE * free_bytes - model_bytes, row_bytes)
    parts = min(rows, max(1, -int(-rows * row_bytes // room)))
    return -(-rows // parts)


def rows_that_fit(
    model: PreTrainedModel,
    loss: Loss,
    batch_of: Callable[[int], dict[str, Tensor]],
    rows: int,
    implementation: Implementation,
    sharing: int,
) -> int:
    """Rows of a micro-batch of a model on the CPU; 0 on a GPU, which will tell, and for few rows: the whole batch.

    Args:
        model: the model, with its weights.
        loss: loss of the task.
        batch_of: a batch of so many rows, to measure on.
        rows: rows of the effective batch.
        implementation: how it is computed.
        sharing: processes that share the memory which is free.
    """
    if implementation.device != "cpu" or rows < MORE:
        return 0
    batch, precision, free_bytes = batch_of(MORE), implementation.precision, free_memory() / sharing
    model_bytes = GRADIENT_AND_MOMENTS_BYTES * sum(parameter.numel() for parameter in model.parameters())
    return fitting_rows(rows, saved_row_bytes(model, loss, batch, precision), model_bytes, free_bytes)


def saved_row_bytes(model: PreTrainedModel, loss: Loss, batch: dict[str, Tensor], precision: str) -> float:
    """Bytes that a row keeps from the forward pass to the backward pass.

    Args:
        batch: at least ``MORE`` rows.
        precision: ``fp32`` or ``bf16`` (autocast).
    """
    few, more = (_saved_bytes(model, loss, batch, count, precision) for count in (FEW, MORE))
    return (more - few) / (MORE - FEW)


def _saved_bytes(model: PreTrainedModel, loss: Loss, batch: dict[str, Tensor], count: int, precision: str) -> int:
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        # Kept, so that no address is used twice while we count.
        kept.append(tensor)
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = model.device.type
    bf16 = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
    with torch.random.fork_rng(devices=[]), bf16, saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model, {name: tensor[:count].to(device) for name, tensor in batch.items()})
    return sum(sizes.values())
