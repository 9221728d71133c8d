"""Binary and ternary quantization: a sign and a scale."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from trainlarge.compression.fake_quantization import Fitted, QuantizeWeights, aware_of
from trainlarge.compression.registry import TrainingStart, applies_to_each, while_training
from trainlarge.compression.stored.groups import by_group, per_weight, rows_of
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.signs import Signs
from trainlarge.config.quantize import Binary, SignsAndScale, Ternary

THRESHOLD = 0.7
"""Ternary weights are 0 below this share of the mean magnitude (Li et al. 2016, equation 6)."""


@applies_to_each(Binary)
def binarize(tensor: Tensor, method: Binary) -> Signs:
    """The sign of every weight of a matrix, and the mean magnitude of its group."""
    return _stored(tensor, method)


@applies_to_each(Ternary)
def ternarize(tensor: Tensor, method: Ternary) -> Signs:
    """The sign of every large weight of a matrix, and the mean magnitude of those of its group."""
    return _stored(tensor, method)


def _stored(tensor: Tensor, method: SignsAndScale) -> Signs:
    signs, scale = _FITS[type(method)](rows_of(tensor, method.granularity), method)
    return Signs(
        codes=signs.to(torch.int8).view(tensor.shape),
        scale=scale,
        bits=method.bits,
        dtype=tensor.dtype,
        nonzero=nonzero_count(tensor),
        group_size=method.group_size,
    )


@while_training(Binary, Ternary)
def aware(method: SignsAndScale, start: TrainingStart) -> QuantizeWeights:
    """Round weights as they will be stored; signs have no range, so the gradient reaches all, as in XTC's code."""
    return aware_of(
        method, start, lambda of_matrix: Fitted(partial(fake_quantize, method=cast(SignsAndScale, of_matrix)))
    )


def fake_quantize(tensor: Tensor, method: SignsAndScale) -> tuple[Tensor, None]:
    """The matrix as it will be stored, float32."""
    values = rows_of(tensor, method.granularity)
    signs, scale = _FITS[type(method)](values, method)
    # + 0: no -0, which codes do not have.
    return (signs + 0.0).mul_(per_weight(scale, method.group_size, values.shape[1])).view(tensor.shape), None


def _binary(values: Tensor, method: SignsAndScale) -> tuple[Tensor, Tensor]:
    (scale,) = by_group(values, method.group_size, lambda group: (_mean_of_nonzero(group),))
    return values.sign(), scale


def _ternary(values: Tensor, method: SignsAndScale) -> tuple[Tensor, Tensor]:
    scale, threshold = by_group(values, method.group_size, _scale_and_threshold)
    kept = values.abs() > per_weight(threshold, method.group_size, values.shape[1])
    return values.sign() * kept, scale


_FITS: dict[type[SignsAndScale], Callable[[Tensor, SignsAndScale], tuple[Tensor, Tensor]]] = {
    Binary: _binary,
    Ternary: _ternary,
}
"""Class of a method -> signs [rows, columns] and scale [rows, groups] of weights [rows, columns]."""


def _scale_and_threshold(values: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [n, 1] each, of groups [n, g] of weights."""
    threshold = (THRESHOLD * values.abs().mean(1, keepdim=True, dtype=torch.float64)).float()
    return _mean_of_nonzero(values.masked_fill(values.abs() <= threshold, 0.0)), threshold


def _mean_of_nonzero(values: Tensor) -> Tensor:
    """float32 [n, 1]: mean magnitude of the weights of each group that are not 0; 0 where all are."""
    count = (values != 0).sum(1, keepdim=True)
    return (values.abs().sum(1, keepdim=True, dtype=torch.float64) / count.clamp(min=1)).float()
