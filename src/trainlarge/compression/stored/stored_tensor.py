"""Stored tensors: how compression keeps one tensor, as floats or as codes, and the float tensor that it stands for.

Each format is one class in one file next to this one (``dense.py``, ``affine.py``, ``codebook.py``, ...), together with
the payloads that write it to the packed file; ``formats.py`` lists them. A format offers every operation of
``StoredTensor``, so that the code that uses stored tensors never asks which format it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from trainlarge.compression.stored.pattern import Pattern


class StoredTensor(Protocol):
    """One tensor as compression leaves it. Encodings turn it into the bytes of the packed file and back."""

    @property
    def shape(self) -> torch.Size:
        """Shape of the float tensor."""

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the float tensor."""

    @property
    def bits(self) -> int | Fraction:
        """Ideal bits per stored weight: no scales, no index (Li et al. 2020, section 4)."""

    @property
    def nonzero(self) -> int:
        """Weights that pruning left: those that were not zero before quantization."""

    def dense(self) -> Tensor:
        """The float tensor that is evaluated; the same bits on every call and after every decoding."""

    def mask(self) -> Tensor:
        """bool [n]: weights that the packed file must hold; all others have the bits of +0.0."""

    @property
    def pattern(self) -> Pattern:
        """Where ``mask`` is false, as far as the sizes of the encodings depend on it."""

    def with_zeros(self, is_zero: Tensor) -> StoredTensor | None:
        """The same codes with zeros at more places, as pruning after quantization makes them.

        The weights that are left then count as non-zero, also where rounding made them 0.

        Args:
            is_zero: bool, of the tensor's shape; true at least wherever the tensor is 0 already.

        Returns:
            None where no code stands for 0.
        """

    def slice(self, dimension: int, kept: Tensor, nonzero: int) -> StoredTensor | None:
        """The same codes at the indices ``kept`` of one dimension, as removing rows or columns leaves them.

        Args:
            dimension: of the tensor.
            kept: int64 [left], rising.
            nonzero: how many of the weights that are left were not zero before quantization.

        Returns:
            None where columns are taken out of groups: these would no longer be of one size.
        """


@dataclass(frozen=True, eq=False)
class DenseWeights(Mapping[str, Tensor]):
    """The float tensors of a model, each made when it is asked for: a whole second model is never in memory."""

    stored: Mapping[str, StoredTensor]
    """Tensor name -> stored tensor."""

    def __getitem__(self, name: str) -> Tensor:
        return self.stored[name].dense()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


class Elementwise(ABC):
    """What all formats share: the packed file can leave out the weights that are 0."""

    @abstractmethod
    def mask(self) -> Tensor:
        """As in ``StoredTensor``."""

    @cached_property
    def pattern(self) -> Pattern:
        """As in ``StoredTensor``."""
        return Pattern.of(self.mask())
