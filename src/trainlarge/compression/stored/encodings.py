"""Encodings: how a stored tensor is written as named parts of the packed file. The smallest that fits is used.

Most are an index (which weights are stored) with a payload (how they are written). Any index goes with any payload that
can write the format, and floats are a payload of every format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from trainlarge.compression.stored import container
from trainlarge.compression.stored.container import Layout, TensorSpec
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.entropy import ZSTD, coded_parts, restored
from trainlarge.compression.stored.formats import PAYLOADS
from trainlarge.compression.stored.indexes import INDEXES, Index
from trainlarge.compression.stored.note import BOTH, SUMMANDS, Note, encoding_in, keys_below, note_in, shape_in
from trainlarge.compression.stored.payload import Payload, Tensors
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.errors import UserError

S = TypeVar("S", bound=StoredTensor)
V = TypeVar("V")

PACKING = 2
"""Version of the choice of encodings: raised when the same tensor may take other bytes. Records keep it."""
DENSE = "dense"
"""Name of the encoding that needs no note."""
NEAR = 1 << 12
"""Bytes: encodings that take more than the smallest by this much or more are not made smaller by a shorter header."""


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
    def decode(self, note: Note, parts: Tensors) -> StoredTensor:
        """A stored tensor whose ``dense()`` has the same bits."""

    def bytes(self, tensor: S) -> int:
        """Bytes of all parts."""
        return sum(spec.bytes for spec in self.layout(tensor).values())

    def file_bytes(self, tensor: S, name: str) -> int:
        """Bytes of a packed file with this tensor alone: with the header, which outweighs the parts of a small one."""
        notes = {} if self.name == DENSE else {name: self.full_note(tensor)}
        return container.file_bytes({"tensors": notes}, names_in_file(name, self.layout(tensor)))

    def full_note(self, tensor: S) -> Note:
        """The note as the packed file holds it: with the name of the encoding."""
        return {"encoding": self.name, **self.note(tensor)}


class DenseEncoding(Encoding[StoredTensor]):
    """The float tensor as it is, under the tensor's own name; fits every format."""

    name = DENSE

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


class IndexedEncoding(Encoding[StoredTensor]):
    """The weights that an index stores, written by a payload."""

    def __init__(self, index: Index, payload: Payload[Any]) -> None:
        self.index, self.payload = index, payload
        self.name = "_".join(filter(None, (index.name, payload.name)))

    def fits(self, tensor: StoredTensor) -> bool:
        if not isinstance(tensor, self.payload.tensor_class) or not self.index.fits(tensor.pattern):
            return False
        return self.payload.fits(tensor, self.index.count(tensor.pattern))

    def layout(self, tensor: StoredTensor) -> Layout:
        return {**self.index.layout(tensor.pattern), **self.payload.layout(tensor, self.index.count(tensor.pattern))}

    def encode(self, tensor: StoredTensor) -> dict[str, Tensor]:
        is_stored = self.index.stored(tensor.mask())
        return {**self.index.encode(is_stored, tensor.pattern), **self.payload.encode(tensor, is_stored)}

    def note(self, tensor: StoredTensor) -> Note:
        return {**self.payload.note(tensor), **self.index.note(tensor.pattern)}

    def decode(self, note: Note, parts: Tensors) -> StoredTensor:
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


class EntropyCoded(Encoding[StoredTensor]):
    """Another encoding, whose bytes are entropy-coded where that makes them fewer.

    It has no name of its own: the note says which parts are coded, and ``decoded`` restores them first. Only this
    encoding has to encode a tensor to know its bytes.
    """

    def __init__(self, inner: Encoding[Any]) -> None:
        self.inner, self.name = inner, inner.name
        # Coding is what takes time, and a tensor never changes.
        self._known: WeakKeyDictionary[StoredTensor, tuple[Layout, Note]] = WeakKeyDictionary()

    def fits(self, tensor: StoredTensor) -> bool:
        return self.inner.name != DENSE and self.inner.fits(tensor)

    def layout(self, tensor: StoredTensor) -> Layout:
        return self._layout_and_note(tensor)[0]

    def note(self, tensor: StoredTensor) -> Note:
        return self._layout_and_note(tensor)[1]

    def encode(self, tensor: StoredTensor) -> dict[str, Tensor]:
        parts = self.inner.encode(tensor)
        return {**parts, **{name: part.data for name, part in coded_parts(parts, self.inner.full_note(tensor)).items()}}

    def decode(self, note: Note, parts: Tensors) -> StoredTensor:
        return decoded(note, parts)

    def _layout_and_note(self, tensor: StoredTensor) -> tuple[Layout, Note]:
        if tensor not in self._known:
            parts, note = self.inner.encode(tensor), self.inner.full_note(tensor)
            coded = coded_parts(parts, note)
            layout = {name: TensorSpec.of(coded[name].data if name in coded else part) for name, part in parts.items()}
            self._known[tensor] = layout, {**note, ZSTD: {name: part.to_json() for name, part in coded.items()}}
        return self._known[tensor]


_ALL: list[Encoding[Any]] = [
    DenseEncoding(),
    *(IndexedEncoding(index, payload) for payload in PAYLOADS for index in INDEXES if index.name or payload.name),
    SumEncoding(),
]

_OF_EVERY_WEIGHT = frozenset(payload.name for payload in PAYLOADS if payload.name)
"""Names of the encodings that store every weight as a code."""

ENCODINGS: dict[str, Encoding[Any]] = {encoding.name: encoding for encoding in _ALL}
"""Name in the packed file -> encoding."""


CODED: Mapping[str, Encoding[StoredTensor]] = {name: EntropyCoded(encoding) for name, encoding in ENCODINGS.items()}
"""Name of an encoding -> the same with entropy coding."""


def fitting(tensor: StoredTensor) -> list[Encoding[Any]]:
    """The encodings that can write a stored tensor."""
    return [encoding for encoding in ENCODINGS.values() if encoding.fits(tensor)]


def smallest(tensor: StoredTensor, name: str = "") -> Encoding[Any]:
    """The encoding that takes the fewest bytes, its share of the header included; among equals the first.

    Args:
        name: of the tensor in the file.
    """
    sizes = {encoding: encoding.bytes(tensor) for encoding in fitting(tensor)}
    least = min(sizes.values())
    near = [encoding for encoding, size in sizes.items() if size < least + NEAR]
    return near[0] if len(near) == 1 else min(near, key=lambda encoding: encoding.file_bytes(tensor, name))


def smallest_coded(tensor: StoredTensor, name: str = "") -> Encoding[Any]:
    """As ``smallest``, where entropy coding is allowed: never larger.

    Coded are the smallest encoding without it, and the one that stores every weight, since frequent zeros cost little.
    """
    plain = smallest(tensor, name)
    every = [encoding for encoding in fitting(tensor) if encoding.name in _OF_EVERY_WEIGHT]
    tried = [CODED[encoding.name] for encoding in (plain, *every)]
    candidates = [plain, *(encoding for encoding in tried if encoding.fits(tensor))]
    return min(candidates, key=lambda encoding: encoding.file_bytes(tensor, name))


def names_in_file(name: str, parts: Mapping[str, V]) -> dict[str, V]:
    """Part names in the file: the tensor's own for a part without name, else with a colon, which no tensor name has."""
    return {f"{name}:{part}" if part else name: value for part, value in parts.items()}


def encoding_named(name: str) -> Encoding[Any]:
    """The encoding of a packed file. Raises UserError for a name that is not known here."""
    if name not in ENCODINGS:
        raise UserError("packed.encoding", name, f"one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def decoded(note: Note, parts: Tensors) -> StoredTensor:
    """The stored tensor of a note with its encoding's name, and of its parts."""
    tensor: StoredTensor = encoding_named(encoding_in(note)).decode(note, restored(parts, note))
    return tensor


def _summands(tensor: DensePlusSparse) -> dict[str, StoredTensor]:
    return {key: getattr(tensor, key) for key in SUMMANDS}
