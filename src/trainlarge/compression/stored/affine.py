"""Quantized weights with a scale and a whole-number zero point."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainlarge.compression.stored.coded import CodesPayload, Grouped, check_groups, grouped_note, rows_left
from trainlarge.compression.stored.groups import per_weight
from trainlarge.compression.stored.note import Note, dtype_in, integer, optional_integer, shape_in
from trainlarge.compression.stored.packed_bits import pack_codes, unpack_codes
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.payload import Tensors, select


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Grouped):
    """w = scale * (code - zero_point), with codes uint8 below 2^bits."""

    zero_point: Tensor
    """uint8 [rows, groups] or [1, 1]: the code that stands for exactly 0."""

    nonzero: int
    """Weights that were not zero before quantization."""

    def mask(self) -> Tensor:
        # Comparing bytes takes several times as long as telling which of their bits differ.
        return (self.rows ^ self.per_weight(self.zero_point)).bool().view(-1)

    @property
    def centred(self) -> Tensor:
        """uint8 of the tensor's shape: code - zero_point modulo 2^bits, 0 wherever the weight is 0."""
        differences = self.rows - self.per_weight(self.zero_point)
        return differences.bitwise_and_((1 << self.bits) - 1).view(self.shape)

    def symbols(self) -> list[Tensor]:
        """As in ``Coded``."""
        return [self.codes, self.centred]

    def dense(self) -> Tensor:
        centred = self.rows.to(torch.float32).sub_(self.per_weight(self.zero_point))
        return self._as_float(centred.mul_(self.per_weight(self.scale)))

    def with_zeros(self, is_zero: Tensor) -> Affine:
        codes = torch.where(is_zero.view_as(self.rows), self.per_weight(self.zero_point), self.rows)
        return replace(self, codes=codes.view(self.shape), nonzero=nonzero_count(~is_zero))

    def slice_others(self, left: Affine, dimension: int, kept: Tensor, nonzero: int) -> Affine:
        return replace(left, zero_point=rows_left(self.zero_point, dimension, kept), nonzero=nonzero)


class AffineCodes(CodesPayload[Affine]):
    """Codes of ``bits`` bits, with scale and zero point of each group."""

    name, tensor_class = "codes", Affine

    def arrays(self, tensor: Affine) -> dict[str, Tensor]:
        return {"step": tensor.scale, "zero": tensor.zero_point}

    def note(self, tensor: Affine) -> Note:
        return grouped_note(tensor, {"nonzero": tensor.nonzero})

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Affine:
        scale, zero_point = parts["step"], parts["zero"]
        bits, group_size = integer(note, "bits"), optional_integer(note, "group_size")
        check_groups(scale, group_size, len(is_stored))
        if zero_point.numel() != 1:
            check_groups(zero_point, group_size, len(is_stored))
        columns = len(is_stored) // len(scale)
        codes = per_weight(zero_point, group_size, columns).expand(len(scale), columns).reshape(-1).clone()
        codes[is_stored] = self.read_codes(parts["codes"], bits, codes[is_stored])
        return Affine(
            codes=codes.view(shape_in(note)),
            scale=scale,
            bits=bits,
            dtype=dtype_in(note),
            group_size=group_size,
            zero_point=zero_point,
            nonzero=integer(note, "nonzero"),
        )

    def read_codes(self, packed: Tensor, bits: int, zero_points: Tensor) -> Tensor:
        """uint8 [n]: the codes of the weights that are stored, with the zero point of each."""
        return unpack_codes(packed, bits, len(zero_points))


class CentredCodes(AffineCodes):
    """As ``AffineCodes``, with code - zero_point modulo 2^bits in the place of the code.

    It takes as many bytes, and fewer after entropy coding: whatever the zero point of a group, the weights near 0 have
    the same symbols.
    """

    name = "centred"

    def encode(self, tensor: Affine, is_stored: Tensor) -> dict[str, Tensor]:
        return {
            **super().encode(tensor, is_stored),
            "codes": pack_codes(select(tensor.centred, is_stored), tensor.bits),
        }

    def read_codes(self, packed: Tensor, bits: int, zero_points: Tensor) -> Tensor:
        """As in ``AffineCodes``."""
        differences = super().read_codes(packed, bits, zero_points)
        return differences.add_(zero_points).bitwise_and_((1 << bits) - 1)
