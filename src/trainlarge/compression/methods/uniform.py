"""Uniform quantization to codes with a scale and a whole-number zero point."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.groups import by_group, per_weight, rows_of
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.quantize import SIGMA, Uniform
from trainlarge.models.fake_quantize import usable_scale

SHARES = [share / 100 for share in range(100, 18, -2)]
"""Shares of the whole range among which the range of least squared error is searched."""


@applies(Uniform)
def quantize_all(method: Uniform, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, StoredTensor]:
    """Quantize every matrix, with the scales that training has learned where it has."""
    return {name: quantize(tensor, method, shared.learned.scales.get(name)) for name, tensor in tensors.items()}


def quantize(tensor: Tensor, method: Uniform, learned: Tensor | None = None) -> Affine:
    """Codes of one matrix, computed in float32; the matrix, each row or each group has its own range.

    An error in range is at most half of the scale. A weight of 0 stays 0.

    Args:
        learned: float32 [rows, groups]: scales in the place of fitted ones, around the middle code.
    """
    values = rows_of(tensor, method.granularity)
    scale, zero_point = fitted(values, method) if learned is None else (learned, middle_code(method))
    columns, size = values.shape[1], method.group_size
    scales, zero_points = per_weight(scale, size, columns), per_weight(zero_point, size, columns)
    return affine(tensor, codes_of(values, scales, zero_points, largest_code(method)), scale, zero_point, method)


def fake_quantize(tensor: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    """``quantize(tensor, method).dense()`` as float32, and bool of its shape: the weights whose code is not clamped."""
    values = rows_of(tensor, method.granularity)
    scale, zero_point = fitted(values, method)
    columns, size = values.shape[1], method.group_size
    rounded, is_inside = rounded_to_codes(
        values, per_weight(scale, size, columns), per_weight(zero_point, size, columns), largest_code(method)
    )
    return rounded.view(tensor.shape), is_inside.view(tensor.shape)


def rounded_to_codes(values: Tensor, scale: Tensor, zero_point: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """The values that codes stand for, and where they were not clamped, with the scale and zero point of each value."""
    codes = torch.div(values, scale).round_().add_(zero_point)
    clamped = codes.clamp(0, largest)
    return clamped.sub(zero_point).mul_(scale), clamped == codes


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
        return scale, middle_code(method, values.device)
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
        return usable_scale(scale.float()), middle_code(method, scale.device)
    scale = usable_scale(((highest - lowest) / largest_code(method)).float())
    return scale, (-lowest / scale).round().clamp(0, largest_code(method)).float()


def middle_code(method: Uniform, device: torch.device | str = "cpu") -> Tensor:
    """float32 [1, 1]: the code that stands for 0 in a range around 0; without symmetry there is one more below it."""
    return torch.full((1, 1), float((largest_code(method) + 1) // 2), device=device)


def _whole_range(values: Tensor, _method: Uniform) -> tuple[Tensor, Tensor]:
    # torch.aminmax takes several times as long as both.
    return values.amin(1, keepdim=True).double(), values.amax(1, keepdim=True).double()


def _percentile_range(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    count, percentile = values.shape[1], method.percentile or 100.0
    beyond = round((1 - percentile / 100) * (count - 1))
    lowest = values.kthvalue(beyond + 1, dim=1, keepdim=True).values
    highest = values.kthvalue(count - beyond, dim=1, keepdim=True).values
    return lowest.double(), highest.double()


def _deviation_range(values: Tensor, method: Uniform) -> tuple[Tensor, Tensor]:
    is_left, wide = values != 0, values.double()
    count = is_left.sum(1, keepdim=True).clamp_(min=1)
    mean = wide.sum(1, keepdim=True) / count
    variance = (wide - mean).square_().mul_(is_left).sum(1, keepdim=True) / count
    reach = (method.sigma or SIGMA) * variance.sqrt()
    return mean - reach, mean + reach


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
    "sigma": _deviation_range,
}
