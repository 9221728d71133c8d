"""Quantization to equally spaced values from the smallest to the largest weight."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.bits import pack_mask
from trainlarge.compression.stored.forms import Form, Offset
from trainlarge.compression.stored.groups import by_group, rows_of, spread
from trainlarge.config.quantize import MinMax


@applies(MinMax)
def min_max(method: MinMax, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, Form]:
    """Round every matrix to codes; each matrix, row or group has its own range."""
    return {name: quantize(tensor, method) for name, tensor in tensors.items()}


def quantize(tensor: Tensor, method: MinMax) -> Offset:
    """Codes of one matrix, computed in float32; an error is at most half a step. A weight of 0 stays 0."""
    values = rows_of(tensor, method.granularity)
    top, columns, size = 2**method.bits - 1, values.shape[1], method.group_size
    step, offset = by_group(values, size, lambda group: _range(group, top))
    places = (values - spread(offset, size, columns)).div_(spread(step, size, columns))
    is_left = values != 0
    return Offset(
        codes=places.round_().clamp_(0, top).to(torch.uint8).view(tensor.shape),
        step=step,
        offset=offset,
        bits=method.bits,
        dtype=tensor.dtype,
        kept=None if bool(is_left.all()) else torch.from_numpy(pack_mask(is_left.reshape(-1).numpy())),
        group_size=size,
    )


def _range(values: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Step and offset, float32 [n, 1], of the weights of groups [n, g] that are not 0; 1 and 0 where all are 0."""
    is_zero = values == 0
    lowest = values.masked_fill(is_zero, torch.inf).amin(1, keepdim=True).double()
    highest = values.masked_fill(is_zero, -torch.inf).amax(1, keepdim=True).double()
    step = ((highest - lowest) / top).float()
    # A group of equal weights has no extent: any step will do, since code 0 is their value.
    return torch.where(step > 0, step, 1.0), torch.where(lowest.isfinite(), lowest, 0.0).float()
