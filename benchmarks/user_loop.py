"""The loop that a user would write today: load a checkpoint, prune, fake-quantize, evaluate, recipe by recipe.

Nothing of trainlarge is in it: ``from_pretrained``, ``torch.nn.utils.prune``, plain torch, the library's forward pass.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers import AutoModelForMaskedLM

IGNORED = -100


def losses(folder: Path, grid: list[tuple[float, int]], inputs: Tensor, labels: Tensor, rows: int) -> list[float]:
    """Evaluation loss of every (sparsity, bits) of a grid, each from the checkpoint on.

    Args:
        folder: the checkpoint, a Hugging Face folder.
        grid: share of all weights that are pruned by magnitude, and bits of the rest, a range for each row; 32: none.
        inputs: token ids [rows, sequence].
        labels: [rows, sequence], ``IGNORED`` where nothing is to be predicted.
        rows: of a batch.
    """
    return [_loss(_compressed(folder, sparsity, bits), inputs, labels, rows) for sparsity, bits in grid]


def full_labels(inputs: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
    """Labels [rows, sequence] of those at some positions [rows, m]."""
    return torch.full_like(inputs, IGNORED).scatter_(1, positions, labels)


def _compressed(folder: Path, sparsity: float, bits: int) -> nn.Module:
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    output = model.get_output_embeddings()
    layers = [
        module for module in model.modules() if isinstance(module, nn.Linear | nn.Embedding) and module is not output
    ]
    if sparsity:
        chosen = [(layer, "weight") for layer in layers]
        prune.global_unstructured(chosen, pruning_method=prune.L1Unstructured, amount=sparsity)
        for layer in layers:
            prune.remove(layer, "weight")
    with torch.no_grad():
        for layer in layers if bits < 32 else []:
            layer.weight.copy_(_fake_quantized(layer.weight, bits))
    model.tie_weights()
    return model


def _fake_quantized(weight: Tensor, bits: int) -> Tensor:
    lowest = weight.amin(1, keepdim=True).clamp(max=0)
    step = (weight.amax(1, keepdim=True).clamp(min=0) - lowest) / (2**bits - 1)
    step = torch.where(step > 0, step, torch.ones_like(step))
    zero = torch.round(-lowest / step)
    return step * (torch.clamp(torch.round(weight / step) + zero, 0, 2**bits - 1) - zero)


@torch.no_grad()
def _loss(model: nn.Module, inputs: Tensor, labels: Tensor, rows: int) -> float:
    batches = zip(inputs.split(rows), labels.split(rows), strict=True)
    parts = [float(model(input_ids=batch, labels=wanted).loss) * len(batch) for batch, wanted in batches]
    return sum(parts) / len(inputs)
