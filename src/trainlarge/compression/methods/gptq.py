"""Uniform quantization with second-order corrections of the columns that are still to be rounded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainlarge.compression.methods.uniform import affine, encoded, quantize, scales, top
from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.forms import Affine, Form
from trainlarge.compression.stored.groups import rows_of, spread
from trainlarge.config.quantize import GPTQ

BLOCK = 128
"""Columns after which the corrections of the others are added up: speed only."""


@applies(GPTQ)
def gptq(method: GPTQ, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, Form]:
    """Round every matrix column by column; one without inputs of its own to the nearest value."""
    calibration = shared.calibrated(method)
    forms: dict[str, Form] = {}
    for name, tensor in tensors.items():
        factor = calibration.factor(name, method)
        forms[name] = quantize(tensor, method) if factor is None else correct(tensor, factor, method)
    return forms


def correct(matrix: Tensor, factor: Tensor, method: GPTQ) -> Affine:
    """Codes of ``matrix`` [out, in] by the factor U [in, in] of its inputs. A weight of 0 stays 0."""
    step, zero = scales(rows_of(matrix, method.granularity), method)
    rows, columns = matrix.shape
    steps, zeros = (spread(scale, method.group_size, columns).expand(rows, columns) for scale in (step, zero))
    weights, codes = matrix.float().clone(), torch.empty(matrix.shape)
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        errors = torch.empty((rows, end - begin))
        for j in range(begin, end):
            found = encoded(weights[:, j], steps[:, j], zeros[:, j], top(method))
            codes[:, j] = torch.where(matrix[:, j] == 0, zeros[:, j], found)
            rounded = (codes[:, j] - zeros[:, j]) * steps[:, j]
            errors[:, j - begin] = (weights[:, j] - rounded) / factor[j, j]
            weights[:, j:end] -= errors[:, j - begin, None] * factor[j, j:end]
        weights[:, end:] -= errors @ factor[begin:end, end:]
    return affine(matrix, codes, step, zero, method)
