"""Uniform quantization to codes with a scale and a whole-number zero point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainlarge.compression.registry import applies_to_each
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.groups import by_group, per_weight, rows_of
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.config.quantize import Uniform
from trainlarge.models.fake_quantize import usable_scale

SHARES = [share / 100 for share in range(100, 18, -2)]
"""Shares of the whole range among which the range of least squared error is searched."""


@applies_to_each(Uniform)
def quantize(tensor: Tensor, method: Uniform) -> Affine:
    """Codes of one matrix, computed in float32; the matrix, each row or each group has its own range.

    An error in range is at most half of the scale. A weight of 0 stays 0.
    """
    values = rows_of(tensor, method.granularity)
    scale, zero_point = fitted(values, method)
    columns, size = values.shape[1], method.group_size
    scales, zero_points = per_weight(scale, size, columns), per_weight(zero_point, size, columns)
    return affine(tensor, codes_of(values, scales, zero_points, largest_code(method)), scale, zero_point, method)


def affine(tensor: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor, method: Uniform) -> Affine:
    """``tensor`` stored as these codes, whole numbers in float32 [rows, columns]."""
    return Affine(
        codes=codes.to(torch.uint8).view(tensor.shape),
        scale=scale,
        zero_point=zero_point.to(torch.uint8),
        bits=method.bits,
        dtype=tensor.dtype,
        nonzero=nonzero_count(tensor),
        group_size=method.group_size,
    )


def codes_of(values: Tensor, scale: Tensor, zero_point: Tensor, largest: int) -> Tensor:
    """Codes, as float32, of values with the scale and zero point of each."""
    return torch.div(values, scale).round_().add_(zero_point).clamp_(0, largest)


def largest_code(method: Uniform) -> int:
    """The largest code: a symmetric range leaves one of the 2^bits unused."""
    return (1 << method.bits) - (2 if method.symmetric else 1)


def fitted(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    """Scale [rows, groups] and zero point ([rows, groups], or [1, 1]: the middle code) of values [rows, columns]."""
    if method.symmetric:
        (scale,) = by_group(values, method.group_size, lambda group: _fit(group, method)[:1])
        return scale, _middle_code(method)
    scale, zero_point = by_group(values, method.group_size, lambda group: _fit(group, method))
    return scale, zero_point


def _fit(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    """Scale and zero point [n, 1] for groups [n, g] of weights."""
    lowest, highest = _RANGES[method.range](values, method)
    return _of_range(lowest, highest, method)


def _of_range(lowest: Tensor, highest: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    """Scale and zero point for the range [lowest, highest], float64 [n, 1], widened to hold 0."""
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    if method.symmetric:
        scale = torch.maximum(-lowest, highest) / (largest_code(method) // 2)
        return usable_scale(scale.float()), _middle_code(method)
    scale = usable_scale(((highest - lowest) / largest_code(method)).float())
    return scale, (-lowest / scale).round().clamp(0, largest_code(method)).float()


def _middle_code(method: Uniform) -> Tensor:
    return torch.full((1, 1), float(largest_code(method) // 2))


def _whole_range(values: Tensor, _method: Uniform) -> tuple[Tensor, Tensor]:
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
        scale, zero_point = _of_range(candidate * whole[0], candidate * whole[1], method)
        rounded = codes_of(values, scale, zero_point, largest_code(method)).sub_(zero_point).mul_(scale)
        error = rounded.sub_(values).square_().sum(1, keepdim=True, dtype=torch.float64)
        share.masked_fill_(error < best, candidate)
        best = torch.minimum(best, error)
    return share * whole[0], share * whole[1]


_RANGES: dict[str, Callable[[Tensor, Uniform], tuple[Tensor, Tensor]]] = {
    "minmax": _whole_range,
    "percentile": _percentile_range,
    "mse": _least_error_range,
}
