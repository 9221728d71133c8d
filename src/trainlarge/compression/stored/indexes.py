"""Indexes: how a packed file says which weights of a tensor it stores; the others are zero."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from itertools import combinations
from math import ceil, comb, log2

import torch
from torch import Tensor

from trainlarge.compression.stored.container import Layout
from trainlarge.compression.stored.note import Note, integer
from trainlarge.compression.stored.packed_bits import bytes_spec, pack_bools, pack_codes, unpack_bools, unpack_codes
from trainlarge.compression.stored.pattern import BLOCKS, FEW, Pattern, gaps_of
from trainlarge.compression.stored.payload import Tensors


class Index(ABC):
    """One way to say which weights are stored: at least those that are not zero."""

    name: str
    """Begins the names of encodings that use it."""

    @abstractmethod
    def fits(self, pattern: Pattern) -> bool:
        """Whether it can hold this pattern."""

    @abstractmethod
    def count(self, pattern: Pattern) -> int:
        """Weights that it stores."""

    @abstractmethod
    def layout(self, pattern: Pattern) -> Layout:
        """Part name -> data type and shape."""

    @abstractmethod
    def stored(self, mask: Tensor) -> Tensor:
        """bool [n]: the weights that it stores of a tensor with that mask of weights that are not zero."""

    @abstractmethod
    def encode(self, stored: Tensor, pattern: Pattern) -> dict[str, Tensor]:
        """Part name -> tensor, as ``layout`` says."""

    @abstractmethod
    def note(self, pattern: Pattern) -> Note:
        """What ``decode`` needs in addition to the parts, as JSON data."""

    @abstractmethod
    def decode(self, note: Note, parts: Tensors, total: int) -> Tensor:
        """What ``stored`` gave."""


class AllWeights(Index):
    """Every weight is stored."""

    name = ""

    def fits(self, pattern: Pattern) -> bool:
        return True

    def count(self, pattern: Pattern) -> int:
        return pattern.total

    def layout(self, pattern: Pattern) -> Layout:
        return {}

    def stored(self, mask: Tensor) -> Tensor:
        return torch.ones_like(mask)

    def encode(self, stored: Tensor, pattern: Pattern) -> dict[str, Tensor]:
        return {}

    def note(self, pattern: Pattern) -> Note:
        return {}

    def decode(self, note: Note, parts: Tensors, total: int) -> Tensor:
        return torch.ones(total, dtype=torch.bool)


class Bitmask(Index):
    """One bit per weight."""

    name = "sparse"

    def fits(self, pattern: Pattern) -> bool:
        return True

    def count(self, pattern: Pattern) -> int:
        return pattern.count

    def layout(self, pattern: Pattern) -> Layout:
        return {"mask": bytes_spec(pattern.total, 1)}

    def stored(self, mask: Tensor) -> Tensor:
        return mask

    def encode(self, stored: Tensor, pattern: Pattern) -> dict[str, Tensor]:
        return {"mask": pack_bools(stored)}

    def note(self, pattern: Pattern) -> Note:
        return {}

    def decode(self, note: Note, parts: Tensors, total: int) -> Tensor:
        return unpack_bools(parts["mask"], total)


class Gaps(Index):
    """The number of zeros before each stored weight, in codes of 2 to 8 bits: smaller than a mask when few are left.

    The largest code says "that many zeros, and no weight yet", so a longer gap takes several codes. (Han et al. 2016,
    arXiv 1510.00149, section 2, store a weight of 0 there instead.)
    """

    name = "gaps"

    def fits(self, pattern: Pattern) -> bool:
        return pattern.count < FEW * pattern.total

    def count(self, pattern: Pattern) -> int:
        return pattern.count

    def layout(self, pattern: Pattern) -> Layout:
        width = self._width(pattern)
        return {"gaps": bytes_spec(pattern.gap_codes[width], width)}

    def stored(self, mask: Tensor) -> Tensor:
        return mask

    def encode(self, stored: Tensor, pattern: Pattern) -> dict[str, Tensor]:
        width = self._width(pattern)
        gaps, top = gaps_of(stored), 2**width - 1
        ends = (gaps // top + 1).cumsum(0) - 1
        codes = torch.full((pattern.gap_codes[width],), top, dtype=torch.uint8)
        codes[ends] = (gaps % top).to(torch.uint8)
        return {"gaps": pack_codes(codes, width)}

    def note(self, pattern: Pattern) -> Note:
        width = self._width(pattern)
        return {"gap_bits": width, "gaps": pattern.gap_codes[width]}

    def decode(self, note: Note, parts: Tensors, total: int) -> Tensor:
        width = integer(note, "gap_bits")
        codes = unpack_codes(parts["gaps"], width, integer(note, "gaps"))
        ends = codes != 2**width - 1
        positions = (codes.long() + ends).cumsum(0)[ends] - 1
        return torch.zeros(total, dtype=torch.bool).index_fill_(0, positions, True)

    def _width(self, pattern: Pattern) -> int:
        return min(pattern.gap_codes, key=lambda width: width * pattern.gap_codes[width])


class NofM(Index):
    """N:M: each block of M consecutive weights stores N, and the number of its pattern among the (M over N) possible.

    2:4 takes 3 bits for 4 weights, 4:8 takes 7 bits for 8. A block with fewer weights stores zeros, too.
    """

    def __init__(self, length: int) -> None:
        self.length, self.name = length, f"of{length}"

    def fits(self, pattern: Pattern) -> bool:
        return 0 < pattern.most[self.length] < self.length

    def count(self, pattern: Pattern) -> int:
        return self._blocks(pattern) * pattern.most[self.length]

    def layout(self, pattern: Pattern) -> Layout:
        return {"blocks": bytes_spec(self._blocks(pattern), self._bits(pattern.most[self.length]))}

    def stored(self, mask: Tensor) -> Tensor:
        blocks = mask.view(-1, self.length)
        first = (~blocks).byte().argsort(dim=1, stable=True)[:, : int(blocks.sum(1).max())]
        return torch.zeros_like(blocks).scatter_(1, first, True).view(-1)

    def encode(self, stored: Tensor, pattern: Pattern) -> dict[str, Tensor]:
        most = pattern.most[self.length]
        powers = 2 ** torch.arange(self.length)
        words = (_patterns(self.length, most).long() * powers).sum(1)
        number = torch.zeros(2**self.length, dtype=torch.uint8)
        number[words] = torch.arange(len(words), dtype=torch.uint8)
        return {"blocks": pack_codes(number[(stored.view(-1, self.length) * powers).sum(1)], self._bits(most))}

    def note(self, pattern: Pattern) -> Note:
        return {"of": pattern.most[self.length]}

    def decode(self, note: Note, parts: Tensors, total: int) -> Tensor:
        most = integer(note, "of")
        codes = unpack_codes(parts["blocks"], self._bits(most), total // self.length)
        return _patterns(self.length, most)[codes.long()].view(-1)

    def _blocks(self, pattern: Pattern) -> int:
        return pattern.total // self.length

    def _bits(self, most: int) -> int:
        return ceil(log2(comb(self.length, most)))


INDEXES: tuple[Index, ...] = (AllWeights(), Bitmask(), Gaps(), *map(NofM, BLOCKS))
"""All indexes; among equals the first is taken."""


@lru_cache(maxsize=32)
def _patterns(length: int, most: int) -> Tensor:
    """bool [(length over most), length]: all ways to choose ``most`` places of ``length``."""
    chosen = torch.tensor(list(combinations(range(length), most)))
    return torch.zeros((len(chosen), length), dtype=torch.bool).scatter_(1, chosen, True)
