"""Payloads: how the weights that an index stores are written to the packed file. Each format brings its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from torch import Tensor

from trainlarge.compression.stored.container import Layout
from trainlarge.compression.stored.note import Note
from trainlarge.compression.stored.pattern import nonzero_places
from trainlarge.compression.stored.stored_tensor import StoredTensor

Tensors = Mapping[str, Tensor]
"""Part name -> tensor of the packed file."""

E = TypeVar("E")


class Payload(ABC, Generic[E]):
    """``layout`` says, without encoding, exactly what ``encode`` will give."""

    name: str
    """Ends the names of encodings that use it."""

    tensor_class: type
    """The formats that it can write: this class and those below it."""

    def fits(self, tensor: E, count: int) -> bool:
        """Whether it can write the ``count`` weights that an index stores."""
        return True

    @abstractmethod
    def layout(self, tensor: E, count: int) -> Layout:
        """Part name -> data type and shape, where ``count`` weights are stored."""

    @abstractmethod
    def encode(self, tensor: E, is_stored: Tensor) -> dict[str, Tensor]:
        """Part name -> tensor, as ``layout`` says; ``is_stored`` is bool [n]."""

    @abstractmethod
    def note(self, tensor: E) -> Note:
        """What ``decode`` needs in addition to the parts, as JSON data with a key ``shape``."""

    @abstractmethod
    def decode(self, note: Note, parts: Tensors, is_stored: Tensor) -> StoredTensor:
        """A stored tensor whose ``dense()`` has the same bits, of the same format or ``Dense``."""


def select(values: Tensor, is_stored: Tensor) -> Tensor:
    """The values [n, any shape] of the weights that an index stores, in order."""
    places = nonzero_places(is_stored)
    flat = values.reshape(-1)
    return flat if len(places) == len(flat) else flat.index_select(0, places)
