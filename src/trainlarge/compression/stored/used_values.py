"""A book without the values that no weight takes: smaller where weights are few, as after pruning."""

from __future__ import annotations

from math import ceil, log2

import torch
from torch import Tensor

from trainlarge.compression.stored.codebook import Codebook
from trainlarge.compression.stored.container import Layout, TensorSpec
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.floats import bit_patterns
from trainlarge.compression.stored.note import Note, shape_in
from trainlarge.compression.stored.packed_bits import bytes_spec, pack_codes, unpack_codes
from trainlarge.compression.stored.pattern import nonzero_count, nonzero_places
from trainlarge.compression.stored.payload import Payload, Tensors, select
from trainlarge.compression.stored.stored_tensor import Elementwise


class UsedValues(Payload[Codebook | Dense]):
    """The values that occur in each row, one after the other, and codes that count among those of the row.

    Also for floats that take few values in all, as those of a model that was rounded before; these are one row.
    """

    name, tensor_class = "few", Elementwise

    def fits(self, tensor: Codebook | Dense, count: int) -> bool:
        if not isinstance(tensor, Codebook | Dense) or tensor.few_values is None or not count:
            return False
        return count in (tensor.pattern.total, tensor.pattern.count) and _leaves_out(tensor, count)

    def layout(self, tensor: Codebook | Dense, count: int) -> Layout:
        used = _used(tensor, count)
        layout = {
            "codes": bytes_spec(count, _bits(used)),
            "values": TensorSpec(tensor.dtype, (nonzero_count(used),)),
        }
        return layout if len(used) == 1 else {**layout, "counts": TensorSpec(torch.int16, (len(used),))}

    def encode(self, tensor: Codebook | Dense, is_stored: Tensor) -> dict[str, Tensor]:
        used, book = _used(tensor, nonzero_count(is_stored)), _book(tensor)
        places = (used.cumsum(1) - 1).to(torch.uint8).gather(1, book.rows)
        parts = {"codes": pack_codes(select(places, is_stored), _bits(used)), "values": book.book[used]}
        return parts if len(used) == 1 else {**parts, "counts": used.sum(1, dtype=torch.int16)}

    def note(self, tensor: Codebook | Dense) -> Note:
        return {"shape": list(tensor.shape)}

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Dense:
        values = parts["values"]
        counts = parts.get("counts", torch.tensor([len(values)])).long()
        if len(is_stored) % len(counts) or int(counts.sum()) != len(values) or bool((counts < 0).any()):
            raise ValueError(f"{len(counts)} rows of {len(values)} values for {len(is_stored)} weights")
        places = nonzero_places(is_stored)
        rows = places // (len(is_stored) // len(counts))
        codes = unpack_codes(parts["codes"], _bits_of(int(counts.max())), len(places)).long()
        if bool((codes >= counts[rows]).any()):
            raise ValueError("a code of no value")
        floats = torch.zeros(len(is_stored), dtype=values.dtype)
        floats[places] = values[(counts.cumsum(0) - counts)[rows] + codes]
        return Dense(floats.view(shape_in(note)))


def _book(tensor: Codebook | Dense) -> Codebook:
    if tensor.few_values is None:
        raise ValueError("more values than a book holds")
    return tensor.few_values


def _used(tensor: Codebook | Dense, count: int) -> Tensor:
    """bool [rows, values of the book]: those that occur among the ``count`` weights that are stored."""
    book = _book(tensor)
    return book.used if count == tensor.pattern.total else book.used & bit_patterns(book.book).bool()


def _leaves_out(tensor: Codebook | Dense, count: int) -> bool:
    """Whether it is smaller than the book itself, if the tensor is stored as one."""
    return isinstance(tensor, Dense) or not bool(_used(tensor, count).all())


def _bits(used: Tensor) -> int:
    return _bits_of(int(used.sum(1).max()))


def _bits_of(values: int) -> int:
    return max(1, ceil(log2(values)))
