"""Most weights in one format, and a few outliers in another."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from trainlarge.compression.stored.stored_tensor import Elementwise, StoredTensor


@dataclass(frozen=True, eq=False)
class DensePlusSparse(Elementwise):
    """The sum of two stored tensors of one shape, of which at least one is 0 at each weight."""

    body: StoredTensor
    """Most weights, quantized."""

    rest: StoredTensor
    """The others: the outliers."""

    @property
    def shape(self) -> torch.Size:
        return self.body.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.body.dtype

    @property
    def bits(self) -> Fraction:
        """The average over the weights that are not zero."""
        if self.nonzero == 0:
            return Fraction(0)
        return Fraction(self.body.bits * self.body.nonzero + self.rest.bits * self.rest.nonzero, self.nonzero)

    @property
    def nonzero(self) -> int:
        return self.body.nonzero + self.rest.nonzero

    def mask(self) -> Tensor:
        return self.body.mask() | self.rest.mask()

    def dense(self) -> Tensor:
        return self.body.dense() + self.rest.dense()

    def with_zeros(self, is_zero: Tensor) -> DensePlusSparse | None:
        body = self.body.with_zeros(is_zero | (self.body.dense() == 0))
        rest = self.rest.with_zeros(is_zero | (self.rest.dense() == 0))
        return None if body is None or rest is None else DensePlusSparse(body, rest)

    def slice(self, dimension: int, kept: Tensor, nonzero: int) -> DensePlusSparse | None:
        rest = self.rest.slice(dimension, kept, nonzero)
        if rest is None:
            return None
        body = self.body.slice(dimension, kept, nonzero - rest.nonzero)
        return None if body is None else DensePlusSparse(body, rest)
