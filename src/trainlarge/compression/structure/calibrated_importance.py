"""Importance of units and layers, measured on calibration rows: gradients of gates, and similarity of in and output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from trainlarge.compression.attention_masks import counted
from trainlarge.compression.calibration import first_rows, forward, placed
from trainlarge.compression.layout.encoder import Block, Encoder
from trainlarge.compression.registry import Shared
from trainlarge.compression.weights import Weights
from trainlarge.config.structure import Layers, Units
from trainlarge.errors import UserError
from trainlarge.tasks.packed_text import IGNORED


def gate_importance(method: Units, weights: Weights, shared: Shared, blocks: tuple[Block, ...]) -> list[Tensor]:
    """Of each block, float64 [units]: the mean over rows of |dL / d gate|, divided by its norm over the block.

    L of a row is the mean cross entropy of its labels. Michel et al. 2019, eq. 2; section 4 for the norm.
    """
    calibration = shared.calibrated(method)
    totals = [torch.zeros(block.units, dtype=torch.float64) for block in blocks]
    model = calibration.model_of(weights)
    with ExitStack() as hooks:
        gates: dict[str, Tensor] = {}
        for block in blocks:
            hook = model.get_submodule(block.output).register_forward_pre_hook(_gated(block, gates))
            hooks.callback(hook.remove)
        for batch in first_rows(calibration.batches(), method.calibration_rows):
            gradients = _gate_gradients(model, batch, blocks, gates)
            totals = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
    return [total / total.norm() if total.any() else total for total in totals]


def layer_similarity(method: Layers, weights: Weights, encoder: Encoder, shared: Shared) -> Tensor:
    """Float64 [layers]: the mean cosine between input and output of each layer.

    The mean is over all tokens that count.
    """
    calibration = shared.calibrated(method)
    model = calibration.model_of(weights)
    sums, tokens = torch.zeros(encoder.depth, dtype=torch.float64), 0
    inputs: dict[str, Tensor] = {}
    cosines: dict[int, Tensor] = {}
    with torch.no_grad(), ExitStack() as hooks:
        for index in range(encoder.depth):
            layer = model.get_submodule(f"{encoder.layers}.{index}")
            hooks.callback(layer.register_forward_hook(_compared(index, inputs, cosines)).remove)
        for batch in first_rows(calibration.batches(), method.calibration_rows):
            inputs.clear()
            inputs.update((key, value) for key, value in batch.items() if key != "labels")
            forward(model, placed(inputs, model))
            for index, similar in cosines.items():
                sums[index] += float(similar.sum())
            tokens += cosines[0].numel()
    return sums / max(tokens, 1)


def _gated(block: Block, gates: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A hook that multiplies each unit's channels by its gate; each row of the batch has its own gate."""

    def multiply(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden = inputs[0]
        gate = torch.ones(len(hidden), block.units, device=hidden.device, requires_grad=True)
        gates[block.output] = gate
        channels = gate.to(hidden.dtype).repeat_interleave(block.width, dim=1)
        return (hidden * channels.view(len(hidden), *[1] * (hidden.ndim - 2), -1), *inputs[1:])

    return multiply


def _gate_gradients(
    model: nn.Module, batch: dict[str, Tensor], blocks: tuple[Block, ...], gates: dict[str, Tensor]
) -> list[Tensor]:
    """Of each block, float64 [units]: sum over the rows of |dL / d gate|, L of each row by itself."""
    if "labels" not in batch:
        raise UserError("calibration", "inputs alone", "batches with labels, where importance is by gradient")
    inputs = {key: tensor for key, tensor in batch.items() if key != "labels"}
    logits = getattr(forward(model, placed(inputs, model)), "logits", None)
    if logits is None:
        raise UserError("structure.importance", "gradient", "weight for a model without logits")
    labels = batch["labels"].to(logits.device)
    losses = nn.functional.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), reduction="none")
    predictions = (labels != IGNORED).sum(-1).clamp(min=1)
    by_row = losses.view(len(labels), -1).sum(1) / predictions.view(len(labels), -1).sum(1)
    gradients = torch.autograd.grad(by_row.sum(), [gates[block.output] for block in blocks])
    return [gradient.abs().sum(0).double().cpu() for gradient in gradients]


def _compared(
    index: int, batch: Mapping[str, Tensor], cosines: dict[int, Tensor]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor | tuple[Tensor, ...]], None]:
    """A hook that keeps the cosine between input and output of layer ``index`` of each token that counts."""

    def compare(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        mask = batch.get("attention_mask")
        before = counted(inputs[0], mask).double()
        after = counted(output[0] if isinstance(output, tuple) else output, mask).double()
        cosines[index] = nn.functional.cosine_similarity(before, after, dim=-1)

    return compare
