"""Quantized weights that take one of a few values, listed in a codebook."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, log2

import numpy as np
import torch
from torch import Tensor

from trainlarge.compression.stored.coded import Coded, CodesPayload, rows_left
from trainlarge.compression.stored.floats import bit_patterns
from trainlarge.compression.stored.note import Note, integer, shape_in
from trainlarge.compression.stored.packed_bits import unpack_codes
from trainlarge.compression.stored.pattern import nonzero_count, nonzero_places
from trainlarge.compression.stored.payload import Tensors

MOST_VALUES = 256
"""Values of the largest book: a code is a byte."""
_SAMPLES = (1 << 12, 1 << 16)
"""Weights that are looked at first: in most cases they already show that a tensor takes more values."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Codebook(Coded):
    """w = book[row, code], with codes uint8 below 2^bits."""

    book: Tensor
    """[rows, 2^bits] of the tensor's data type; the tensor reshaped to [rows, -1] has one book per row."""

    nonzero: int
    """Weights that were not zero before quantization."""

    @property
    def dtype(self) -> torch.dtype:
        return self.book.dtype

    @property
    def rows(self) -> Tensor:
        """int64: the codes as [rows, weights per row]."""
        return self.codes.view(len(self.book), -1).long()

    def mask(self) -> Tensor:
        return bit_patterns(self.dense()).bool().view(-1)

    def dense(self) -> Tensor:
        return self.book.gather(1, self.rows).view(self.shape)

    @property
    def few_values(self) -> Codebook:
        """Itself: what ``UsedValues`` writes."""
        return self

    @cached_property
    def used(self) -> Tensor:
        """bool [rows, 2^bits]: which values of the book any weight takes."""
        return torch.zeros(self.book.shape, dtype=torch.bool).scatter_(1, self.rows, True)

    def with_zeros(self, is_zero: Tensor) -> Codebook | None:
        """As in ``StoredTensor``; a book without a 0 gets one in the place of a value that no weight takes any more."""
        zeros, codes = is_zero.view(len(self.book), -1), self.rows
        uses = torch.zeros(self.book.shape, dtype=torch.int64).scatter_add_(1, codes, (~zeros).long())
        preference = 2 * (self.book == 0) + 1 * (uses == 0)
        needs_zero = zeros.any(1, keepdim=True)
        if not (preference.any(1, keepdim=True) | ~needs_zero).all():
            return None
        place = preference.argmax(1, keepdim=True)
        return replace(
            self,
            codes=torch.where(zeros, place, codes).byte().view(self.shape),
            book=torch.where(needs_zero, self.book.scatter(1, place, 0.0), self.book),
            nonzero=nonzero_count(~is_zero),
        )

    def slice(self, dimension: int, kept: Tensor, nonzero: int) -> Codebook:
        book = rows_left(self.book, dimension, kept)
        return replace(self, codes=self.codes.index_select(dimension, kept), book=book, nonzero=nonzero)


class BookCodes(CodesPayload[Codebook]):
    """Codes of ``bits`` bits, with the book of each row. A weight that is not stored takes a code of 0."""

    name, tensor_class = "book", Codebook

    def arrays(self, tensor: Codebook) -> dict[str, Tensor]:
        return {"book": tensor.book}

    def note(self, tensor: Codebook) -> Note:
        return {"shape": list(tensor.shape), "bits": tensor.bits, "nonzero": tensor.nonzero}

    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> Codebook:
        book, bits = parts["book"], integer(note, "bits")
        code_of_zero = (bit_patterns(book) == 0).byte().argmax(1, keepdim=True).byte()
        codes = code_of_zero.expand(-1, len(is_stored) // len(book)).reshape(-1).clone()
        codes[is_stored] = unpack_codes(parts["codes"], bits, nonzero_count(is_stored))
        return Codebook(codes=codes.view(shape_in(note)), bits=bits, book=book, nonzero=integer(note, "nonzero"))


def book_of_few(patterns: Tensor, dtype: torch.dtype, shape: torch.Size) -> Codebook | None:
    """A tensor as codes of one book of all its values; None where they are more than ``MOST_VALUES``, or none.

    Args:
        patterns: [n] integers with the bits of its values.
        dtype: of the tensor.
        shape: of the tensor.
    """
    samples = (patterns[:: max(1, len(patterns) // size)].numpy() for size in _SAMPLES)
    if not len(patterns) or any(len(np.unique(sample[sample != 0])) > MOST_VALUES for sample in samples):
        return None
    places = nonzero_places(patterns.bool())
    values, codes = map(torch.from_numpy, np.unique(patterns[places].numpy(), return_inverse=True))
    # The bits of +0.0, for all others.
    book = torch.cat([values, values.new_zeros(int(len(places) < len(patterns)))])
    if len(book) > MOST_VALUES:
        return None
    every = torch.full((len(patterns),), len(book) - 1, dtype=torch.uint8).index_copy_(0, places, codes.byte())
    bits = max(1, ceil(log2(len(book))))
    return Codebook(codes=every.view(shape), bits=bits, book=book.view(dtype).view(1, -1), nonzero=len(places))
