"""The weights of smallest score in each row, or in each block of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from trainlarge.compression.stored.dense import Dense
from trainlarge.config.prune import check_blocks


def zero_in_rows(name: str, tensor: Tensor, scores: Tensor, sparsity: float, m: int | None) -> Dense:
    """``tensor`` with the share ``sparsity`` of each row, or of every ``m`` weights of a row, set to +0.

    Args:
        name: of the tensor, for the error.
        tensor: the matrix to prune, rows in its first dimension.
        scores: [rows, columns], float32 or float64; the smallest go first, among equals by position.
        sparsity: exactly round(sparsity * n) of the n weights of a row or block become zero.
        m: length of a block; None: the row.

    Raises UserError where ``m`` does not divide the columns.
    """
    if m is not None:
        check_blocks(m, name, scores.shape[1])
    groups = scores.reshape(-1, m or scores.shape[1])
    return Dense.pruned(tensor, smallest(groups, round(sparsity * groups.shape[1])))


def zero_small_in_rows(name: str, tensor: Tensor, sparsity: float, m: int | None) -> Dense:
    """:func:`zero_in_rows` by magnitude."""
    magnitudes = tensor.to(torch.promote_types(tensor.dtype, torch.float32)).abs()
    return zero_in_rows(name, tensor, magnitudes.reshape(len(tensor), -1), sparsity, m)


def smallest(scores: Tensor, count: int) -> Tensor:
    """bool [rows, columns]: the ``count`` smallest scores of each row, among equals by position.

    More of them contain fewer of them: masks are nested over ``count``.
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(count, dim=1, keepdim=True).values
    before, tied = scores < threshold, scores == threshold
    missing = count - before.sum(1, keepdim=True)
    if bool((tied.sum(1, keepdim=True) == missing).all()):
        return before.logical_or_(tied)
    return before.logical_or_(tied & (tied.cumsum(1) <= missing))
