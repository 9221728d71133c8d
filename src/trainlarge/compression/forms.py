"""Forms: the ways in which a compressed tensor is held, each of which knows the float tensor it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

_BIT_PATTERN = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Form(Protocol):
    """One tensor as compression leaves it. Encodings turn a form into the bytes of the packed file and back."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor it stands for."""

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the tensor it stands for."""

    @property
    def bits(self) -> int:
        """Bits that one stored weight ideally takes: no scales, no index (Li et al. 2020, section 4)."""

    @property
    def nonzero(self) -> int:
        """Weights that pruning left: not zero before they were rounded."""

    def dense(self) -> Tensor:
        """The float tensor that is evaluated; the same bits on every call and after every decoding."""


@dataclass(frozen=True, eq=False)
class Plain:
    """A tensor as it is: not rounded, perhaps pruned."""

    values: Tensor
    """Any shape and data type."""

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def bits(self) -> int:
        return 8 * self.values.element_size()

    @cached_property
    def nonzero(self) -> int:
        return int(torch.count_nonzero(self.values))

    def patterns(self) -> Tensor:
        """[n] integers with the bits of the values: -0.0 is not 0 here, so that a sparse encoding loses nothing."""
        return self.values.reshape(-1).view(_BIT_PATTERN[self.values.element_size()])

    @cached_property
    def stored(self) -> int:
        """Weights that a sparse encoding has to store."""
        return int(torch.count_nonzero(self.patterns()))

    def dense(self) -> Tensor:
        return self.values


@dataclass(frozen=True, eq=False)
class Affine:
    """Rounded weights: w = step * (code - zero), the same step for all weights of a group of rows."""

    codes: Tensor
    """uint8, of the tensor's shape, each below 2^bits."""

    step: Tensor
    """float32 [groups, 1]; the tensor reshaped to [groups, -1] has one step a row."""

    zero: Tensor
    """uint8 [groups, 1] or [1, 1]: the code that stands for exactly 0."""

    bits: int
    """Bits of a code."""

    dtype: torch.dtype
    """Data type of the float tensor."""

    nonzero: int
    """Weights that were not zero before they were rounded."""

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @cached_property
    def stored(self) -> int:
        """Weights that a sparse encoding has to store: those that were not rounded to zero."""
        return int(torch.count_nonzero(self.mask()))

    def mask(self) -> Tensor:
        """bool [groups, n]: which weights are not zero."""
        return self.codes.view(len(self.step), -1) != self.zero

    def dense(self) -> Tensor:
        values = self.codes.view(len(self.step), -1).to(torch.float32).sub_(self.zero).mul_(self.step)
        return values.view(self.shape).to(self.dtype)
