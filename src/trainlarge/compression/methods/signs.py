"""Binary and ternary quantization: a sign and a scale."""

from __future__ import annotations

import torch
from torch import Tensor

from trainlarge.compression.registry import applies_to_each
from trainlarge.compression.stored.groups import by_group, per_weight, rows_of
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.signs import Signs
from trainlarge.config.quantize import Binary, SignsAndScale, Ternary

THRESHOLD = 0.7
"""Ternary weights are 0 below this share of the mean magnitude (Li et al. 2016, equation 6)."""


@applies_to_each(Binary)
def binarize(tensor: Tensor, method: Binary) -> Signs:
    """The sign of every weight of a matrix, and the mean magnitude of its group."""
    values = rows_of(tensor, method.granularity)
    (scale,) = by_group(values, method.group_size, lambda group: (_mean_of_nonzero(group),))
    return _signs(tensor, values.sign(), scale, method)


@applies_to_each(Ternary)
def ternarize(tensor: Tensor, method: Ternary) -> Signs:
    """The sign of every large weight of a matrix, and the mean magnitude of those of its group."""
    values = rows_of(tensor, method.granularity)
    scale, threshold = by_group(values, method.group_size, _scale_and_threshold)
    kept = values.abs() > per_weight(threshold, method.group_size, values.shape[1])
    return _signs(tensor, values.sign() * kept, scale, method)


def _scale_and_threshold(values: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [n, 1] each, of groups [n, g] of weights."""
    threshold = (THRESHOLD * values.abs().mean(1, keepdim=True, dtype=torch.float64)).float()
    return _mean_of_nonzero(values.masked_fill(values.abs() <= threshold, 0.0)), threshold


def _mean_of_nonzero(values: Tensor) -> Tensor:
    """float32 [n, 1]: mean magnitude of the weights of each group that are not 0; 0 where all are."""
    count = (values != 0).sum(1, keepdim=True)
    return (values.abs().sum(1, keepdim=True, dtype=torch.float64) / count.clamp(min=1)).float()


def _signs(tensor: Tensor, signs: Tensor, scale: Tensor, method: SignsAndScale) -> Signs:
    return Signs(
        codes=signs.to(torch.int8).view(tensor.shape),
        scale=scale,
        bits=method.bits,
        dtype=tensor.dtype,
        nonzero=nonzero_count(tensor),
        group_size=method.group_size,
    )
