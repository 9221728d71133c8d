"""Quantized weights, and what of their error a product of two thin matrices holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from trainlarge.compression.stored.affine import Affine, CentredCodes
from trainlarge.compression.stored.container import Layout, TensorSpec
from trainlarge.compression.stored.floats import representable
from trainlarge.compression.stored.note import Note
from trainlarge.compression.stored.offset import bits_unless_all
from trainlarge.compression.stored.packed_bits import pack_bools, unpack_bools
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.payload import Payload, Tensors
from trainlarge.compression.stored.stored_tensor import Elementwise

FACTOR = torch.float16
"""Data type of the factors."""
_BODY = CentredCodes()


@dataclass(frozen=True, eq=False, kw_only=True)
class Repaired(Elementwise):
    """w = body + (up @ down) for a matrix [rows, columns], and 0 where a weight was pruned."""

    body: Affine
    """The rounded weights, in the data type of the sum. Those of pruned weights mean nothing."""

    up: Tensor
    """float16 [rows, rank]."""

    down: Tensor
    """float16 [rank, columns]."""

    kept: Tensor | None = None
    """uint8 [ceil(n / 8)]: one bit per weight, set where the weight is left; None: all are left."""

    @property
    def shape(self) -> torch.Size:
        return self.body.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.body.dtype

    @property
    def bits(self) -> Fraction:
        """Those of a code, and the share of each weight that is left in the bits of the factors."""
        factors = 8 * (self.up.nbytes + self.down.nbytes)
        return Fraction(self.body.bits * self.nonzero + factors, self.nonzero) if self.nonzero else Fraction(0)

    @cached_property
    def nonzero(self) -> int:
        return nonzero_count(self.mask())

    def mask(self) -> Tensor:
        """Which weights are left: one that is 0 all the same is among them."""
        if self.kept is None:
            return torch.ones(self.shape.numel(), dtype=torch.bool)
        return unpack_bools(self.kept, self.shape.numel())

    def dense(self) -> Tensor:
        rounded = replace(self.body, dtype=torch.float32).dense()
        values = representable(rounded + product(self.up, self.down), self.dtype)
        return values if self.kept is None else values.masked_fill_(~self.mask().view(self.shape), 0.0)

    def with_zeros(self, is_zero: Tensor) -> Repaired:
        return replace(self, kept=pack_bools(~is_zero))

    def slice(self, dimension: int, kept: Tensor, nonzero: int) -> Repaired | None:
        body = self.body.slice(dimension, kept, nonzero)
        if body is None:
            return None
        is_left = self.mask().view(self.shape).index_select(dimension, kept)
        up = self.up if dimension else self.up.index_select(0, kept)
        down = self.down.index_select(1, kept) if dimension else self.down
        return Repaired(body=body, up=up, down=down, kept=bits_unless_all(is_left))


def product(up: Tensor, down: Tensor) -> Tensor:
    """float32 [rows, columns]: up @ down, the same bits everywhere.

    Terms are added in their order: what a product of matrices adds first depends on the machine and its threads.
    """
    total = torch.zeros((len(up), down.shape[1]))
    for column, row in zip(up.float().T, down.float(), strict=True):
        total.add_(column[:, None] * row)
    return total


class RepairedCodes(Payload[Repaired]):
    """The codes and scales of the body, and the factors. Exactly the weights that are left are stored."""

    name, tensor_class = "repaired", Repaired

    def fits(self, tensor: Repaired, count: int) -> bool:
        return count == tensor.nonzero

    def layout(self, tensor: Repaired, count: int) -> Layout:
        return {**_BODY.layout(tensor.body, count), "up": TensorSpec.of(tensor.up), "down": TensorSpec.of(tensor.down)}

    def encode(self, tensor: Repaired, is_stored: Tensor) -> dict[str, Tensor]:
        return {**_BODY.encode(tensor.body, is_stored), "up": tensor.up, "down": tensor.down}

    def note(self, tensor: Repaired) -> Note:
        return _BODY.note(tensor.body)

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Repaired:
        body, up, down = _BODY.decode(note, parts, is_stored), parts["up"], parts["down"]
        (rows, rank), (also_rank, columns) = up.shape, down.shape
        if {up.dtype, down.dtype} != {FACTOR} or rank != also_rank or (rows, columns) != tuple(body.shape):
            raise ValueError(f"factors {tuple(up.shape)}, {tuple(down.shape)} for {tuple(body.shape)}")
        return Repaired(body=body, up=up, down=down, kept=bits_unless_all(is_stored))
