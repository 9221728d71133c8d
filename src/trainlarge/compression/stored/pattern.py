"""Where a tensor has zeros, as far as the sizes of its encodings depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

BLOCKS = (4, 8)
"""Lengths M of the blocks that are searched for N:M patterns."""

FEW = 0.38
"""Share of non-zero weights from which gaps take more bytes than a mask, for zeros at random places."""

_HEAD = 4096
"""Weights at the start of a tensor that are enough, in most cases, to show that it has no N:M pattern."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Counts of non-zero weights and of the gaps between them: all that the sizes of a tensor's indexes depend on."""

    total: int
    """Weights of the tensor."""

    count: int
    """Weights that are not zero."""

    gaps: Tensor
    """int64 [longest gap + 1]: how many non-zero weights follow 0, 1, 2, ... zeros; empty where gaps do not help."""

    most: Mapping[int, int]
    """M -> the largest number of non-zero weights in any block of M consecutive ones; M where that does not help."""

    @classmethod
    def of(cls, mask: Tensor) -> Pattern:
        """The pattern of a bool mask [n] of the weights that are not zero."""
        count = nonzero_count(mask)
        gaps = torch.bincount(gaps_of(mask)) if 0 < count < FEW * len(mask) else torch.zeros(0, dtype=torch.int64)
        return cls(len(mask), count, gaps, {length: _most(mask, length) for length in BLOCKS})

    @cached_property
    def gap_codes(self) -> dict[int, int]:
        """Bits of a code -> codes that all gaps take, where the largest code stands for zeros without a weight."""
        gaps = self.gaps.numpy()
        lengths = np.arange(len(gaps))
        return {width: self.count + int(gaps @ (lengths // (2**width - 1))) for width in range(2, 9)}


def gaps_of(mask: Tensor) -> Tensor:
    """int64 [count]: zeros before each weight, since the one before it."""
    positions = nonzero_places(mask)
    return positions.diff(prepend=positions.new_tensor([-1])) - 1


def nonzero_count(tensor: Tensor) -> int:
    """How many numbers of a tensor of any data type are not zero."""
    # torch.count_nonzero takes up to ten times as long where many are zero.
    return int(np.count_nonzero(tensor.bool().numpy()))


def nonzero_places(mask: Tensor) -> Tensor:
    """int64 [count]: where a bool mask [n] is true."""
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def _most(mask: Tensor, length: int) -> int:
    if len(mask) % length:
        return length
    head = mask[: _HEAD - _HEAD % length].view(-1, length).sum(1)
    if not len(head) or int(head.max()) == length:
        return length
    return int(mask.view(-1, length).sum(1, dtype=torch.uint8).max())
