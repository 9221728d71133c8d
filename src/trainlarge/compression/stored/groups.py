"""Groups of weights that share one scale: a whole matrix, a row, or g consecutive weights of a row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def rows_of(tensor: Tensor, granularity: str) -> Tensor:
    """float32 [rows, columns]: one row for granularity ``tensor``, else those of the first dimension."""
    rows = 1 if granularity == "tensor" else tensor.shape[0]
    return tensor.float().reshape(rows, -1)


def by_group(values: Tensor, size: int | None, fit: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What ``fit`` ([n, g] -> tensors [n, 1]) makes of every group of ``values`` [rows, columns]: [rows, groups].

    ``size`` is the length of a group (None: the row); where it does not divide the row, the last group is shorter.
    """
    rows, columns = values.shape
    if size is None or size >= columns:
        return fit(values)
    whole = columns // size * size
    of_whole_groups = tuple(tensor.view(rows, -1) for tensor in fit(values[:, :whole].reshape(-1, size)))
    if whole == columns:
        return of_whole_groups
    of_last_groups = fit(values[:, whole:])
    return tuple(torch.cat(pair, dim=1) for pair in zip(of_whole_groups, of_last_groups, strict=True))


def per_weight(values: Tensor, size: int | None, columns: int) -> Tensor:
    """Values [rows, groups] as [rows, columns], or [rows, 1] where a row is one group: the value of each weight."""
    if size is None or values.shape[1] == 1:
        return values
    return values.repeat_interleave(size, dim=1)[:, :columns]
