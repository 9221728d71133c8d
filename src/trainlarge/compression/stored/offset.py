"""Quantized weights whose range starts anywhere: a scale and a float offset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from trainlarge.compression.stored.coded import CodesPayload, Grouped, check_groups, grouped_note, rows_left
from trainlarge.compression.stored.note import Note, dtype_in, integer, optional_integer, shape_in
from trainlarge.compression.stored.packed_bits import pack_bools, unpack_bools, unpack_codes
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.payload import Tensors


@dataclass(frozen=True, eq=False, kw_only=True)
class Offset(Grouped):
    """w = scale * code + offset, with codes uint8 below 2^bits, and 0 where a weight was pruned.

    The code of a pruned weight means nothing.
    """

    offset: Tensor
    """float32 [rows, groups]: the value of code 0."""

    kept: Tensor | None = None
    """uint8 [ceil(n / 8)]: one bit per weight, set where the weight is left; None: all are left."""

    @cached_property
    def nonzero(self) -> int:
        return nonzero_count(self.mask())

    def mask(self) -> Tensor:
        """Which weights are left: one that rounding made 0 is among them."""
        if self.kept is None:
            return torch.ones(self.codes.numel(), dtype=torch.bool)
        return unpack_bools(self.kept, self.codes.numel())

    def symbols(self) -> list[Tensor]:
        """As in ``Coded``."""
        return []

    def dense(self) -> Tensor:
        scaled = self.rows.to(torch.float32).mul_(self.per_weight(self.scale))
        values = self._as_float(scaled.add_(self.per_weight(self.offset)))
        return values if self.kept is None else values.masked_fill_(~self.mask().view(self.shape), 0.0)

    def with_zeros(self, is_zero: Tensor) -> Offset:
        return replace(self, kept=pack_bools(~is_zero))

    def slice_others(self, left: Offset, dimension: int, kept: Tensor, nonzero: int) -> Offset:
        is_left = self.mask().view(self.shape).index_select(dimension, kept)
        return replace(left, offset=rows_left(self.offset, dimension, kept), kept=bits_unless_all(is_left))


def bits_unless_all(is_kept: Tensor) -> Tensor | None:
    """The field ``kept`` for a bool tensor of the weights that are left."""
    return None if bool(is_kept.all()) else pack_bools(is_kept)


class OffsetCodes(CodesPayload[Offset]):
    """Codes of ``bits`` bits, with scale and offset of each group.

    Exactly the weights that are left are stored: no code stands for 0.
    """

    name, tensor_class = "offset", Offset

    def fits(self, tensor: Offset, count: int) -> bool:
        return count == tensor.nonzero

    def arrays(self, tensor: Offset) -> dict[str, Tensor]:
        return {"step": tensor.scale, "offset": tensor.offset}

    def note(self, tensor: Offset) -> Note:
        return grouped_note(tensor, {})

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Offset:
        bits, group_size = integer(note, "bits"), optional_integer(note, "group_size")
        for values in (parts["step"], parts["offset"]):
            check_groups(values, group_size, len(is_stored))
        codes = torch.zeros(len(is_stored), dtype=torch.uint8)
        codes[is_stored] = unpack_codes(parts["codes"], bits, nonzero_count(is_stored))
        return Offset(
            codes=codes.view(shape_in(note)),
            scale=parts["step"],
            bits=bits,
            dtype=dtype_in(note),
            group_size=group_size,
            offset=parts["offset"],
            kept=bits_unless_all(is_stored),
        )
