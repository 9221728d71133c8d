"""Quantized weights that take one of a few values, listed in a codebook."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainlarge.compression.stored.coded import Coded, CodesPayload, rows_left
from trainlarge.compression.stored.note import Note, integer, shape_in
from trainlarge.compression.stored.packed_bits import unpack_codes
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.payload import Tensors


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
        return self.dense().bool().view(-1)

    def dense(self) -> Tensor:
        return self.book.gather(1, self.rows).view(self.shape)

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
        code_of_zero = (book == 0).byte().argmax(1, keepdim=True).byte()
        codes = code_of_zero.expand(-1, len(is_stored) // len(book)).reshape(-1).clone()
        codes[is_stored] = unpack_codes(parts["codes"], bits, nonzero_count(is_stored))
        return Codebook(codes=codes.view(shape_in(note)), bits=bits, book=book, nonzero=integer(note, "nonzero"))
