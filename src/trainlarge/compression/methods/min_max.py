"""Quantization to equally spaced values from the smallest to the largest weight."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor

from trainlarge.compression.fake_quantization import Fitted, QuantizeWeights, aware_of
from trainlarge.compression.registry import TrainingStart, applies_to_each, while_training
from trainlarge.compression.stored.groups import by_group, per_weight, rows_of
from trainlarge.compression.stored.offset import Offset, bits_unless_all
from trainlarge.config.quantize import MinMax


@applies_to_each(MinMax)
def quantize(tensor: Tensor, method: MinMax) -> Offset:
    """Codes of one matrix, computed in float32; the matrix, each row or each group has its own range.

    An error is at most half of the scale. A weight of 0 stays 0.
    """
    values = rows_of(tensor, method.granularity)
    codes, scale, offset = _fitted(values, method)
    return Offset(
        codes=codes.to(torch.uint8).view(tensor.shape),
        scale=scale,
        offset=offset,
        bits=method.bits,
        dtype=tensor.dtype,
        kept=bits_unless_all(values != 0),
        group_size=method.group_size,
    )


@while_training(MinMax)
def aware(method: MinMax, start: TrainingStart) -> QuantizeWeights:
    """Round weights as they will be stored; the range holds all of them, so the gradient reaches all."""
    return aware_of(method, start, lambda of_matrix: Fitted(partial(fake_quantize, method=cast(MinMax, of_matrix))))


def fake_quantize(tensor: Tensor, method: MinMax) -> tuple[Tensor, None]:
    """``quantize(tensor, method).dense()`` as float32."""
    values = rows_of(tensor, method.granularity)
    codes, scale, offset = _fitted(values, method)
    size, columns = method.group_size, values.shape[1]
    rounded = codes.mul_(per_weight(scale, size, columns)).add_(per_weight(offset, size, columns))
    return rounded.masked_fill_(values == 0, 0.0).view(tensor.shape), None


def _fitted(values: Tensor, method: MinMax) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, as float32 [rows, columns], and scale and offset [rows, groups] of ``values``."""
    largest, columns, size = 2**method.bits - 1, values.shape[1], method.group_size
    scale, offset = by_group(values, size, lambda group: _scale_and_offset(group, largest))
    codes = (values - per_weight(offset, size, columns)).div_(per_weight(scale, size, columns))
    return codes.round_().clamp_(0, largest), scale, offset


def _scale_and_offset(values: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Scale and offset, float32 [n, 1], of the weights of groups [n, g] that are not 0; 1 and 0 where all are 0."""
    is_zero = values == 0
    lowest = values.masked_fill(is_zero, torch.inf).amin(1, keepdim=True).double()
    highest = values.masked_fill(is_zero, -torch.inf).amax(1, keepdim=True).double()
    scale = ((highest - lowest) / largest).float()
    # A group of equal weights has no extent: any scale will do, since code 0 is their value.
    return torch.where(scale > 0, scale, 1.0), torch.where(lowest.isfinite(), lowest, 0.0).float()
