"""Uniform quantization, with a low-rank approximation of its error."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.registry import applies_to_each
from trainlarge.compression.stored.floats import representable
from trainlarge.compression.stored.offset import bits_unless_all
from trainlarge.compression.stored.repaired import FACTOR, Repaired, product
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.quantize import LowRankRepair


@applies_to_each(LowRankRepair)
def repair(tensor: Tensor, method: LowRankRepair) -> StoredTensor:
    """The round of least error; the rounded matrix alone where that has less, or has not two dimensions."""
    best: StoredTensor = quantize(tensor, method)
    if tensor.ndim != 2:
        return best
    weights = tensor.float()
    is_left, rest, least = weights != 0, weights, _error(best, weights)
    for _ in range(method.rounds):
        body = quantize(rest, method)
        up, down = factors((weights - body.dense()) * is_left, method.rank)
        repaired = Repaired(body=replace(body, dtype=tensor.dtype), up=up, down=down, kept=bits_unless_all(is_left))
        if (error := _error(repaired, weights)) < least:
            best, least = repaired, error
        rest = (weights - product(up, down)) * is_left
    return best


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """float16 [m, rank] and [rank, n]: the product of least squared error against ``matrix`` [m, n], before rounding.

    A smaller rank where the matrix has not as many rows or columns.
    """
    if len(matrix) < matrix.shape[1]:
        right, left = factors(matrix.T, rank)
        return left.T.contiguous(), right.T.contiguous()
    wide = matrix.double()
    # Far faster than singular values of a tall matrix: its right singular vectors are the eigenvectors of this.
    right_vectors = torch.linalg.eigh(wide.T @ wide).eigenvectors.flip(1)[:, :rank]
    left = wide @ right_vectors
    root = left.norm(dim=0).sqrt().clamp_(min=torch.finfo(FACTOR).tiny)
    up, down = left / root, (right_vectors * root).T
    return representable(up, FACTOR), representable(down, FACTOR).contiguous()


def _error(stored: StoredTensor, weights: Tensor) -> float:
    return float((stored.dense().float() - weights).square().sum(dtype=torch.float64))
