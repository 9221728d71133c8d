"""Uniform quantization with second-order corrections of the columns that are not rounded yet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainlarge.compression.methods.uniform import affine, codes_of, fitted, largest_code, quantize
from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.groups import per_weight, rows_of
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.quantize import GPTQ

BLOCK = 128
"""Columns whose corrections of the columns to the right are added in one product; affects speed only."""


@applies(GPTQ)
def gptq(method: GPTQ, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, StoredTensor]:
    """Round every matrix column by column; one without inputs of its own to the nearest value."""
    calibration = shared.calibrated(method)
    stored: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        factor = calibration.factor(name, method)
        stored[name] = quantize(tensor, method) if factor is None else correct(tensor, factor, method)
    return stored


def correct(matrix: Tensor, factor: Tensor, method: GPTQ) -> Affine:
    """Codes of ``matrix`` [out, in] by the factor U [in, in] of its inputs. A weight of 0 stays 0."""
    scale, zero_point = fitted(rows_of(matrix, method.granularity), method)
    rows, columns = matrix.shape
    scales, zero_points = (
        per_weight(values, method.group_size, columns).expand(rows, columns) for values in (scale, zero_point)
    )
    weights, codes = matrix.float().clone(), torch.empty(matrix.shape)
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        errors = torch.empty((rows, end - begin))
        for j in range(begin, end):
            nearest = codes_of(weights[:, j], scales[:, j], zero_points[:, j], largest_code(method))
            codes[:, j] = torch.where(matrix[:, j] == 0, zero_points[:, j], nearest)
            rounded = (codes[:, j] - zero_points[:, j]) * scales[:, j]
            errors[:, j - begin] = (weights[:, j] - rounded) / factor[j, j]
            weights[:, j:end] -= errors[:, j - begin, None] * factor[j, j:end]
        weights[:, end:] -= errors @ factor[begin:end, end:]
    return affine(matrix, codes, scale, zero_point, method)
