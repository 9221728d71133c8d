"""Tensors that are not quantized: floats, some of them pruned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainlarge.compression.stored.codebook import Codebook, book_of_few
from trainlarge.compression.stored.container import Layout, TensorSpec
from trainlarge.compression.stored.floats import bit_patterns
from trainlarge.compression.stored.mapped_tensors import read
from trainlarge.compression.stored.note import Note, shape_in
from trainlarge.compression.stored.packed_bits import pack_bools, unpack_bools
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.payload import Payload, Tensors, select
from trainlarge.compression.stored.stored_tensor import Elementwise, StoredTensor


@dataclass(frozen=True, eq=False)
class Dense(Elementwise):
    """A float tensor as it is, or with some of its weights pruned."""

    source: Tensor
    """Any shape and data type. Never copied, so that recipes share the weights of the checkpoint."""

    kept: Tensor | None = None
    """uint8 [ceil(n / 8)]: one bit per weight of ``source``, set where the weight is left; None: all are left."""

    @classmethod
    def pruned(cls, tensor: Tensor, is_zero: Tensor) -> Dense:
        """``tensor`` with +0 where the bool tensor ``is_zero`` of as many weights is true."""
        return cls(tensor, pack_bools(~is_zero))

    @property
    def shape(self) -> torch.Size:
        return self.source.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.source.dtype

    @property
    def bits(self) -> int:
        return 8 * self.source.element_size()

    @cached_property
    def nonzero(self) -> int:
        return nonzero_count(self.dense())

    def patterns(self) -> Tensor:
        """[n] integers with the bits of the values: -0.0 is not 0 here, so that a sparse encoding loses nothing."""
        patterns = bit_patterns(read(self.source).reshape(-1))
        if self.kept is None:
            return patterns
        # Far faster than to fill in zeros, and unlike a product of floats never -0.
        return patterns * unpack_bools(self.kept, len(patterns))

    def mask(self) -> Tensor:
        return self.patterns().bool()

    def dense(self) -> Tensor:
        return read(self.source) if self.kept is None else self.patterns().view(self.dtype).view(self.shape)

    @cached_property
    def few_values(self) -> Codebook | None:
        """The same values as codes of one book; None where they are more than a book holds."""
        return book_of_few(self.patterns(), self.dtype, self.shape)

    def with_zeros(self, is_zero: Tensor) -> Dense:
        return Dense.pruned(self.dense(), is_zero)

    def slice(self, dimension: int, kept: Tensor, nonzero: int) -> Dense:
        return Dense(self.dense().index_select(dimension, kept))


class Values(Payload[StoredTensor]):
    """The float values, of any format: where few weights are left, they take less than books or scales."""

    name, tensor_class = "", Elementwise

    def layout(self, tensor: StoredTensor, count: int) -> Layout:
        return {"values": TensorSpec(tensor.dtype, (count,))}

    def encode(self, tensor: StoredTensor, is_stored: Tensor) -> dict[str, Tensor]:
        return {"values": select(tensor.dense(), is_stored)}

    def note(self, tensor: StoredTensor) -> Note:
        return {"shape": list(tensor.shape)}

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Dense:
        values = torch.zeros(len(is_stored), dtype=parts["values"].dtype)
        values[is_stored] = parts["values"]
        return Dense(values.view(shape_in(note)))
