"""Encodings: how a stored tensor is written as named parts of the packed file. The smallest that fits is used.

Most are an index (which weights are stored) with a payload (how they are written).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod
from typing import Any, Generic, TypeVar

from torch import Tensor

from trainlarge.compression.stored.container import Layout, TensorSpec
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.formats import PAYLOADS
from trainlarge.compression.stored.indexes import INDEXES, Index
from trainlarge.compression.stored.note import BOTH, SUMMANDS, Note, encoding_in, keys_below, note_in, shape_in
from trainlarge.compression.stored.payload import Payload, Tensors
from trainlarge.compression.stored.stored_tensor import Elementwise, StoredTensor
from trainlarge.errors import UserError

S = TypeVar("S", bound=StoredTensor)
E = TypeVar("E", bound=Elementwise)


class Encoding(ABC, Generic[S]):
    """One way to write a stored tensor. ``layout`` says, without encoding, exactly what ``encode`` will give."""

    name: str
    """As written in the packed file."""

    @abstractmethod
    def fits(self, tensor: StoredTensor) -> bool:
        """Whether it can write this tensor."""

    @abstractmethod
    def layout(self, tensor: S) -> Layout:
        """Part name -> data type and shape."""

    @abstractmethod
    def encode(self, tensor: S) -> dict[str, Tensor]:
        """Part name -> tensor, as ``layout`` says."""

    @abstractmethod
    def note(self, tensor: S) -> Note:
        """What ``decode`` needs in addition to the parts, as JSON data."""

    @abstractmethod
    def decode(self, note: Note, parts: Tensors) -> S:
        """The stored tensor again; its ``dense()`` has the same bits."""

    def bytes(self, tensor: S) -> int:
        """Bytes of all parts."""
        return sum(spec.bytes for spec in self.layout(tensor).values())

    def full_note(self, tensor: S) -> Note:
        """The note as the packed file holds it: with the name of the encoding."""
        return {"encoding": self.name, **self.note(tensor)}


class DenseEncoding(Encoding[StoredTensor]):
    """The float tensor as it is, under the tensor's own name; fits every format."""

    name = "dense"

    def fits(self, tensor: StoredTensor) -> bool:
        return True

    def layout(self, tensor: StoredTensor) -> Layout:
        return {"": TensorSpec(tensor.dtype, tuple(tensor.shape))}

    def encode(self, tensor: StoredTensor) -> dict[str, Tensor]:
        return {"": tensor.dense()}

    def note(self, tensor: StoredTensor) -> Note:
        return {}

    def decode(self, note: Note, parts: Tensors) -> StoredTensor:
        return Dense(parts[""])


class IndexedEncoding(Encoding[Any], Generic[E]):
    """The weights that an index stores, written by a payload."""

    def __init__(self, index: Index, payload: Payload[E]) -> None:
        self.index, self.payload = index, payload
        self.name = "_".join(filter(None, (index.name, payload.name)))

    def fits(self, tensor: StoredTensor) -> bool:
        if not isinstance(tensor, self.payload.tensor_class) or not self.index.fits(tensor.pattern):
            return False
        return self.payload.fits(tensor, self.index.count(tensor.pattern))

    def layout(self, tensor: E) -> Layout:
        return {**self.index.layout(tensor.pattern), **self.payload.layout(tensor, self.index.count(tensor.pattern))}

    def encode(self, tensor: E) -> dict[str, Tensor]:
        is_stored = self.index.stored(tensor.mask())
        return {**self.index.encode(is_stored, tensor.pattern), **self.payload.encode(tensor, is_stored)}

    def note(self, tensor: E) -> Note:
        return {**self.payload.note(tensor), **self.index.note(tensor.pattern)}

    def decode(self, note: Note, parts: Tensors) -> E:
        return self.payload.decode(note, parts, self.index.decode(note, parts, prod(shape_in(note))))


class SumEncoding(Encoding[DensePlusSparse]):
    """Two stored tensors, each by its own smallest encoding."""

    name = BOTH

    def fits(self, tensor: StoredTensor) -> bool:
        return isinstance(tensor, DensePlusSparse)

    def layout(self, tensor: DensePlusSparse) -> Layout:
        return {
            f"{key}.{name}": spec
            for key, summand in _summands(tensor).items()
            for name, spec in smallest(summand).layout(summand).items()
        }

    def encode(self, tensor: DensePlusSparse) -> dict[str, Tensor]:
        return {
            f"{key}.{name}": part
            for key, summand in _summands(tensor).items()
            for name, part in smallest(summand).encode(summand).items()
        }

    def note(self, tensor: DensePlusSparse) -> Note:
        return {key: smallest(summand).full_note(summand) for key, summand in _summands(tensor).items()}

    def decode(self, note: Note, parts: Tensors) -> DensePlusSparse:
        summands = []
        for key in SUMMANDS:
            inner, prefix = note_in(note, key), f"{key}."
            of_summand = {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}
            with keys_below(key):
                summands.append(decoded(inner, of_summand))
        return DensePlusSparse(*summands)


_ALL: list[Encoding[Any]] = [
    DenseEncoding(),
    *(IndexedEncoding(index, payload) for payload in PAYLOADS for index in INDEXES if index.name or payload.name),
    SumEncoding(),
]

ENCODINGS: dict[str, Encoding[Any]] = {encoding.name: encoding for encoding in _ALL}
"""Name in the packed file -> encoding."""


def fitting(tensor: StoredTensor) -> list[Encoding[Any]]:
    """The encodings that can write a stored tensor."""
    return [encoding for encoding in ENCODINGS.values() if encoding.fits(tensor)]


def smallest(tensor: StoredTensor) -> Encoding[Any]:
    """The encoding that takes the fewest bytes; among equals the first of ``ENCODINGS``."""
    return min(fitting(tensor), key=lambda encoding: encoding.bytes(tensor))


def encoding_named(name: str) -> Encoding[Any]:
    """The encoding of a packed file. Raises UserError for a name that is not known here."""
    if name not in ENCODINGS:
        raise UserError("packed.encoding", name, f"one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def decoded(note: Note, parts: Tensors) -> StoredTensor:
    """The stored tensor of a note with its encoding's name, and of its parts."""
    tensor: StoredTensor = encoding_named(encoding_in(note)).decode(note, parts)
    return tensor


def _summands(tensor: DensePlusSparse) -> dict[str, StoredTensor]:
    return {key: getattr(tensor, key) for key in SUMMANDS}
