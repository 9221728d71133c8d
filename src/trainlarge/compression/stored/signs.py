"""Binary and ternary weights: a sign, and one scale per group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from trainlarge.compression.stored import bits as bit
from trainlarge.compression.stored.coded import Grouped, check_groups, grouped_note
from trainlarge.compression.stored.container import Layout, TensorSpec
from trainlarge.compression.stored.note import Note, dtype_in, integer, optional_integer, shape_in
from trainlarge.compression.stored.packed_bits import bytes_spec, pack_bools, unpack_bools
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.payload import Payload, Tensors, select


@dataclass(frozen=True, eq=False, kw_only=True)
class Signs(Grouped):
    """w = scale * code, with codes int8: -1, 0 or 1. ``bits`` is 1 for binary weights and 2 for ternary ones."""

    nonzero: int
    """Weights that were not zero before quantization."""

    def mask(self) -> Tensor:
        return self.codes.bool().view(-1)

    def dense(self) -> Tensor:
        return self._as_float(self.rows.to(torch.float32).mul_(self.per_weight(self.scale)))

    def with_zeros(self, is_zero: Tensor) -> Signs:
        return replace(self, codes=self.codes.masked_fill(is_zero, 0), nonzero=nonzero_count(~is_zero))

    def slice_others(self, left: Signs, dimension: int, kept: Tensor, nonzero: int) -> Signs:
        return replace(left, nonzero=nonzero)


class _SignPayload(Payload[Signs]):
    """What the payloads of signs share: the note, and making the tensor from decoded signs."""

    tensor_class = Signs

    def note(self, tensor: Signs) -> Note:
        return grouped_note(tensor, {"nonzero": tensor.nonzero})

    def _signs(self, note: Note, scale: Tensor, is_stored: Tensor, stored: Tensor) -> Signs:
        group_size = optional_integer(note, "group_size")
        check_groups(scale, group_size, len(is_stored))
        codes = torch.zeros(prod(shape_in(note)), dtype=torch.int8)
        codes[is_stored] = stored
        return Signs(
            codes=codes.view(shape_in(note)),
            scale=scale,
            bits=integer(note, "bits"),
            dtype=dtype_in(note),
            group_size=group_size,
            nonzero=integer(note, "nonzero"),
        )


class SignBits(_SignPayload):
    """One bit per weight: positive or not. No weight that is stored may be 0."""

    name = "signs"

    def fits(self, tensor: Signs, count: int) -> bool:
        return count == tensor.pattern.count

    def layout(self, tensor: Signs, count: int) -> Layout:
        return {"signs": bytes_spec(count, 1), "scale": TensorSpec.of(tensor.scale)}

    def encode(self, tensor: Signs, is_stored: Tensor) -> dict[str, Tensor]:
        return {"signs": pack_bools(select(tensor.codes, is_stored) > 0), "scale": tensor.scale}

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Signs:
        is_positive = unpack_bools(parts["signs"], nonzero_count(is_stored))
        return self._signs(note, parts["scale"], is_stored, is_positive.to(torch.int8) * 2 - 1)


class Trits(_SignPayload):
    """Five weights of -1, 0 or 1 per byte: 1.6 bits per weight."""

    name = "trits"

    def layout(self, tensor: Signs, count: int) -> Layout:
        return {"trits": TensorSpec(torch.uint8, (-(-count // 5),)), "scale": TensorSpec.of(tensor.scale)}

    def encode(self, tensor: Signs, is_stored: Tensor) -> dict[str, Tensor]:
        digits = (select(tensor.codes, is_stored) + 1).to(torch.uint8)
        return {"trits": torch.from_numpy(bit.pack_trits(digits.numpy())), "scale": tensor.scale}

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Signs:
        digits = torch.from_numpy(bit.unpack_trits(parts["trits"].numpy(), nonzero_count(is_stored)))
        return self._signs(note, parts["scale"], is_stored, digits.to(torch.int8) - 1)
