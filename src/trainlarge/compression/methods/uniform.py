"""Uniform quantization to codes with a step and a whole-number zero point."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.forms import Affine, Form
from trainlarge.compression.stored.groups import by_group, rows_of, spread
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.config.quantize import Uniform

SHARES = [share / 100 for share in range(100, 18, -2)]
"""Shares of the whole range among which the range of least squared error is looked for."""


@applies(Uniform)
def uniform(method: Uniform, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, Form]:
    """Round every matrix to codes; each matrix, row or group has its own range."""
    return {name: quantize(tensor, method) for name, tensor in tensors.items()}


def quantize(tensor: Tensor, method: Uniform) -> Affine:
    """Codes of one matrix, computed in float32; an error in range is at most half a step. A weight of 0 stays 0."""
    values = rows_of(tensor, method.granularity)
    step, zero = scales(values, method)
    columns, size = values.shape[1], method.group_size
    codes = encoded(values, spread(step, size, columns), spread(zero, size, columns), top(method))
    return affine(tensor, codes, step, zero, method)


def affine(tensor: Tensor, codes: Tensor, step: Tensor, zero: Tensor, method: Uniform) -> Affine:
    """The form of ``tensor`` with these codes, whole numbers in float32 [rows, columns]."""
    return Affine(
        codes=codes.to(torch.uint8).view(tensor.shape),
        step=step,
        zero=zero.to(torch.uint8),
        bits=method.bits,
        dtype=tensor.dtype,
        nonzero=nonzero_count(tensor),
        group_size=method.group_size,
    )


def encoded(values: Tensor, step: Tensor, zero: Tensor, top: int) -> Tensor:
    """Codes, as float32, of values with the step and zero point of each."""
    return torch.div(values, step).round_().add_(zero).clamp_(0, top)


def top(method: Uniform) -> int:
    """The largest code."""
    return 2**method.bits - (2 if method.symmetric else 1)


def scales(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    """Step [rows, groups] and zero point ([rows, groups], or [1, 1]: the middle code) of values [rows, columns]."""
    if method.symmetric:
        (step,) = by_group(values, method.group_size, lambda group: _fit(group, method)[:1])
        return step, _middle(method)
    step, zero = by_group(values, method.group_size, lambda group: _fit(group, method))
    return step, zero


def _fit(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    """Step and zero point [n, 1] for groups [n, g] of weights."""
    lowest, highest = _RANGES[method.range](values, method)
    return _scale(lowest, highest, method)


def _scale(lowest: Tensor, highest: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    """Step and zero point for the range [lowest, highest], float64 [n, 1], widened to hold 0."""
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    if method.symmetric:
        return _usable(torch.maximum(-lowest, highest) / (top(method) // 2)), _middle(method)
    step = _usable((highest - lowest) / top(method))
    return step, (-lowest / step).round().clamp(0, top(method)).float()


def _middle(method: Uniform) -> Tensor:
    return torch.full((1, 1), float(top(method) // 2))


def _whole_range(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    # torch.aminmax takes several times as long as both.
    return values.amin(1, keepdim=True).double(), values.amax(1, keepdim=True).double()


def _percentile_range(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    count, percentile = values.shape[1], method.percentile or 100.0
    beyond = round((1 - percentile / 100) * (count - 1))
    lowest = values.kthvalue(beyond + 1, dim=1, keepdim=True).values
    highest = values.kthvalue(count - beyond, dim=1, keepdim=True).values
    return lowest.double(), highest.double()


def _least_error_range(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    whole = _whole_range(values, method)
    best = torch.full_like(whole[0], torch.inf)
    share = torch.ones_like(best)
    for candidate in SHARES:
        error = _squared_error(values, *_scale(candidate * whole[0], candidate * whole[1], method), method)
        share.masked_fill_(error < best, candidate)
        best = torch.minimum(best, error)
    return share * whole[0], share * whole[1]


def _squared_error(values: Tensor, step: Tensor, zero: Tensor, method: Uniform) -> Tensor:
    """float64 [n, 1]: the sum over each group."""
    rounded = encoded(values, step, zero, top(method)).sub_(zero).mul_(step)
    return rounded.sub_(values).square_().sum(1, keepdim=True, dtype=torch.float64)


_RANGES: dict[str, Callable[[Tensor, Uniform], tuple[Tensor, Tensor]]] = {
    "minmax": _whole_range,
    "percentile": _percentile_range,
    "mse": _least_error_range,
}


def _usable(step: Tensor) -> Tensor:
    """As float32; a group without extent (all weights 0) gets step 1, which keeps its zeros and divides by no zero."""
    step = step.float()
    return torch.where(step > 0, step, torch.ones_like(step))
