"""Uniform quantization to codes with a step and a whole-number zero point."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainlarge.compression.forms import Affine, Form
from trainlarge.compression.registry import Shared, applies
from trainlarge.config.quantize import Uniform


@applies(Uniform)
def uniform(method: Uniform, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, Form]:
    """Round every matrix to codes; each matrix, or each row, has its own range."""
    return {name: quantize(tensor, method) for name, tensor in tensors.items()}


def quantize(tensor: Tensor, method: Uniform) -> Affine:
    """Codes of one matrix, computed in float32; an error in range is at most half a step. A weight of 0 stays 0."""
    groups = {"tensor": 1, "row": tensor.shape[0]}[method.granularity]
    values = tensor.float().reshape(groups, -1)
    step, zero, top = (_symmetric if method.symmetric else _asymmetric)(values, method.bits)
    codes = torch.div(values, step).round_().add_(zero).clamp_(0, top).to(torch.uint8)
    return Affine(
        codes=codes.view(tensor.shape),
        step=step,
        zero=zero.to(torch.uint8),
        bits=method.bits,
        dtype=tensor.dtype,
        nonzero=int(torch.count_nonzero(tensor)),
    )


def _asymmetric(values: Tensor, bits: int) -> tuple[Tensor, Tensor, int]:
    """Step and zero point [groups, 1] and largest code for values [groups, n]; the range is widened to hold 0."""
    lowest, highest = torch.aminmax(values, dim=1, keepdim=True)
    lowest, highest = lowest.double().clamp(max=0), highest.double().clamp(min=0)
    top = 2**bits - 1
    step = _usable((highest - lowest) / top)
    return step, (-lowest / step).round().clamp(0, top).float(), top


def _symmetric(values: Tensor, bits: int) -> tuple[Tensor, Tensor, int]:
    """As ``_asymmetric``; the zero point is the middle code for all groups: [1, 1]."""
    lowest, highest = torch.aminmax(values, dim=1, keepdim=True)
    half = 2 ** (bits - 1) - 1
    step = _usable(torch.maximum(-lowest, highest).double() / half)
    return step, torch.full((1, 1), float(half)), 2 * half


def _usable(step: Tensor) -> Tensor:
    """As float32; a group without extent (all weights 0) gets step 1, which keeps its zeros and divides by no zero."""
    step = step.float()
    return torch.where(step > 0, step, torch.ones_like(step))
