"""Pruning with second-order corrections of the weights that are left."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainlarge.compression.ranking import smallest, zero_small_in_rows
from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.floats import representable
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.prune import SparseGPT


@applies(SparseGPT)
def sparsegpt(method: SparseGPT, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, StoredTensor]:
    """Prune every matrix block by block of its columns; one without inputs of its own by magnitude within its rows."""
    calibration = shared.calibrated(method)
    stored: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        factor = calibration.factor(name, method)
        if factor is None or (method.m is not None and tensor[0].numel() % method.m):
            stored[name] = zero_small_in_rows(name, tensor, method.sparsity, method.m)
        else:
            stored[name] = Dense(representable(prune(tensor, factor, method), tensor.dtype))
    return stored


def prune(matrix: Tensor, factor: Tensor, method: SparseGPT) -> Tensor:
    """The pruned matrix, float32 [out, in], of ``matrix`` [out, in] and the factor U [in, in] of its inputs."""
    weights = matrix.float().clone()
    rows, columns = weights.shape
    for begin in range(0, columns, method.block_size):
        end = min(begin + method.block_size, columns)
        block, block_factor = weights[:, begin:end], factor[begin:end, begin:end]
        count = round(method.sparsity * rows * end) - round(method.sparsity * rows * begin)
        errors = _prune_block(block, block_factor, count, method)
        weights[:, end:] -= errors @ factor[begin:end, end:]
    return weights


def _prune_block(block: Tensor, factor: Tensor, count: int, method: SparseGPT) -> Tensor:
    """Prune ``block`` [out, b] in place; the errors [out, b], to be corrected in the columns to its right."""
    if method.m is None:
        scores = block.square() / factor.diagonal().square()
        zeros = smallest(scores.view(1, -1), count).view(block.shape)
    else:
        zeros = torch.zeros_like(block, dtype=torch.bool)
    errors = torch.zeros_like(block)
    for j in range(block.shape[1]):
        if method.m is not None and j % method.m == 0:
            here = slice(j, j + method.m)
            scores = block[:, here].square() / factor.diagonal()[here].square()
            zeros[:, here] = smallest(scores, round(method.sparsity * method.m))
        errors[:, j] = torch.where(zeros[:, j], block[:, j] / factor[j, j], 0.0)
        block[:, j:] -= errors[:, j : j + 1] * factor[j, j:]
    block.masked_fill_(zeros, 0.0)
    return errors
