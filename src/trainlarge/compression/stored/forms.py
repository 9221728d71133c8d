"""Forms: the ways in which a compressed tensor is held, each of which knows the float tensor it stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from trainlarge.compression.stored.bits import pack_mask, unpack_mask
from trainlarge.compression.stored.groups import spread
from trainlarge.compression.stored.mapped_tensors import read
from trainlarge.compression.stored.pattern import Pattern, nonzero_count

_BIT_PATTERN = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Form(Protocol):
    """One tensor as compression leaves it. Encodings turn a form into the bytes of the packed file and back."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor it stands for."""

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the tensor it stands for."""

    @property
    def bits(self) -> int | Fraction:
        """Bits that one stored weight ideally takes: no scales, no index (Li et al. 2020, section 4)."""

    @property
    def nonzero(self) -> int:
        """Weights that pruning left: not zero before they were rounded."""

    def dense(self) -> Tensor:
        """The float tensor that is evaluated; the same bits on every call and after every decoding."""


@dataclass(frozen=True, eq=False)
class DenseWeights(Mapping[str, Tensor]):
    """The float tensors of forms, each made when it is asked for: a whole second model is never in memory."""

    forms: Mapping[str, Form]
    """Tensor name -> form."""

    def __getitem__(self, name: str) -> Tensor:
        return self.forms[name].dense()

    def __iter__(self) -> Iterator[str]:
        return iter(self.forms)

    def __len__(self) -> int:
        return len(self.forms)


class Elementwise(ABC):
    """A form that can leave out the weights that are zero."""

    @abstractmethod
    def mask(self) -> Tensor:
        """bool [n]: which weights are not zero."""

    @cached_property
    def pattern(self) -> Pattern:
        """What the sizes of its encodings depend on."""
        return Pattern.of(self.mask())


@dataclass(frozen=True, eq=False)
class Plain(Elementwise):
    """A tensor that is not rounded: as it is, or with some of its weights pruned."""

    source: Tensor
    """Any shape and data type. Never copied, so that recipes share the weights of the checkpoint."""

    kept: Tensor | None = None
    """uint8 [ceil(n / 8)]: a bit for each weight of ``source`` that is left, the others are 0; None: all are left."""

    @classmethod
    def pruned(cls, tensor: Tensor, zeros: Tensor) -> Plain:
        """``tensor`` with +0 where the bool tensor ``zeros`` of the same number of weights says so."""
        return cls(tensor, torch.from_numpy(pack_mask(~zeros.reshape(-1).numpy())))

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
        patterns = read(self.source).reshape(-1).view(_BIT_PATTERN[self.source.element_size()])
        if self.kept is None:
            return patterns
        # Far faster than to fill in zeros, and unlike a product of floats never -0.
        return patterns * torch.from_numpy(unpack_mask(self.kept.numpy(), len(patterns)))

    def mask(self) -> Tensor:
        return self.patterns().bool()

    def dense(self) -> Tensor:
        return read(self.source) if self.kept is None else self.patterns().view(self.dtype).view(self.shape)


@dataclass(frozen=True, eq=False)
class Coded(Elementwise):
    """A form with a code for each weight."""

    codes: Tensor
    """uint8, of the tensor's shape, each below 2^bits; without meaning where a weight was pruned."""

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouped(Elementwise):
    """A form whose scales each belong to a group of weights of one row of the tensor reshaped to [rows, -1]."""

    bits: int
    """Bits of a code, or of a sign: 1 for binary weights, 2 for ternary ones."""

    dtype: torch.dtype
    """Data type of the float tensor."""

    group_size: int | None = None
    """Weights of a group of a row; None: the row is one group."""


@dataclass(frozen=True, eq=False)
class Affine(Coded, Grouped):
    """Rounded weights: w = step * (code - zero), the same step and zero for all weights of a group."""

    step: Tensor
    """float32 [rows, groups]; the tensor reshaped to [rows, -1] has ``groups`` steps a row."""

    zero: Tensor
    """uint8 [rows, groups] or [1, 1]: the code that stands for exactly 0."""

    nonzero: int
    """Weights that were not zero before they were rounded."""

    def zeros(self) -> Tensor:
        """uint8, broadcast against [rows, n / rows]: the code of 0 of each weight."""
        return spread(self.zero, self.group_size, self.codes.numel() // len(self.step))

    def mask(self) -> Tensor:
        # Comparing bytes takes several times as long as telling which of their bits differ.
        return (self.codes.view(len(self.step), -1) ^ self.zeros()).bool().view(-1)

    def dense(self) -> Tensor:
        codes = self.codes.view(len(self.step), -1).to(torch.float32)
        values = codes.sub_(self.zeros()).mul_(spread(self.step, self.group_size, codes.shape[1]))
        return values.view(self.shape).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Offset(Coded, Grouped):
    """Rounded weights whose range starts anywhere: w = step * code + offset, and 0 where a weight was pruned."""

    step: Tensor
    """float32 [rows, groups], as the step of ``Affine``."""

    offset: Tensor
    """float32 [rows, groups]: the value of code 0."""

    kept: Tensor | None = None
    """uint8 [ceil(n / 8)]: a bit for each weight that is left, the others are 0; None: all are left."""

    @cached_property
    def nonzero(self) -> int:
        return self.codes.numel() if self.kept is None else nonzero_count(self.mask())

    def mask(self) -> Tensor:
        """Which weights are left: one that rounding made 0 is among them."""
        if self.kept is None:
            return torch.ones(self.codes.numel(), dtype=torch.bool)
        return torch.from_numpy(unpack_mask(self.kept.numpy(), self.codes.numel()))

    def dense(self) -> Tensor:
        codes = self.codes.view(len(self.step), -1).to(torch.float32)
        step, offset = (spread(scale, self.group_size, codes.shape[1]) for scale in (self.step, self.offset))
        values = codes.mul_(step).add_(offset).view(self.shape).to(self.dtype)
        return values if self.kept is None else values.masked_fill_(~self.mask().view(self.shape), 0.0)


@dataclass(frozen=True, eq=False)
class Codebook(Coded):
    """Weights that take one of a few values: w = book[row, code]."""

    book: Tensor
    """[rows, 2^bits] of the tensor's data type; the tensor reshaped to [rows, -1] has one book a row."""

    bits: int
    """Bits of a code."""

    nonzero: int
    """Weights that were not zero before they were rounded."""

    @property
    def dtype(self) -> torch.dtype:
        return self.book.dtype

    def mask(self) -> Tensor:
        return self.dense().bool().view(-1)

    def dense(self) -> Tensor:
        codes = self.codes.view(len(self.book), -1)
        return self.book.gather(1, codes.long()).view(self.shape)


@dataclass(frozen=True, eq=False)
class Signs(Grouped):
    """Binary and ternary weights: w = scale * sign, the same scale for all weights of a group."""

    signs: Tensor
    """int8, of the tensor's shape: -1, 0 or 1."""

    scale: Tensor
    """float32 [rows, groups], as the step of ``Affine``."""

    nonzero: int
    """Weights that were not zero before they were rounded."""

    @property
    def shape(self) -> torch.Size:
        return self.signs.shape

    def mask(self) -> Tensor:
        return self.signs.bool().view(-1)

    def dense(self) -> Tensor:
        signs = self.signs.view(len(self.scale), -1).to(torch.float32)
        return signs.mul_(spread(self.scale, self.group_size, signs.shape[1])).view(self.shape).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Disjoint:
    """The sum of two forms of one shape, of which at least one is 0 at each weight: rounded weights and outliers."""

    body: Form
    """Most weights."""

    rest: Form
    """The others."""

    @property
    def shape(self) -> torch.Size:
        return self.body.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.body.dtype

    @property
    def bits(self) -> Fraction:
        """Their average over the weights that are not zero."""
        stored = self.body.bits * self.body.nonzero + self.rest.bits * self.rest.nonzero
        return Fraction(stored, self.nonzero) if self.nonzero else Fraction(0)

    @property
    def nonzero(self) -> int:
        return self.body.nonzero + self.rest.nonzero

    def dense(self) -> Tensor:
        return self.body.dense() + self.rest.dense()
