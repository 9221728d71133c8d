"""Encodings: how a form is written as named parts of the packed file; each tensor takes the smallest that fits.

Most are an index (which weights are stored) with a payload (how they are written).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Any, Generic, TypeVar

from torch import Tensor

from trainlarge.compression.stored.container import Part, Parts
from trainlarge.compression.stored.forms import Disjoint, Form, Plain
from trainlarge.compression.stored.indexes import INDEXES, Index
from trainlarge.compression.stored.payloads import PAYLOADS, Payload
from trainlarge.errors import UserError

F = TypeVar("F", bound=Form)


class Encoding(ABC, Generic[F]):
    """One way to write a form. ``layout`` tells, without encoding, exactly what ``encode`` will give."""

    name: str
    """As written in the packed file."""

    @abstractmethod
    def fits(self, form: Form) -> bool:
        """Whether it can write this form."""

    @abstractmethod
    def layout(self, form: F) -> Parts:
        """Part name -> data type and shape."""

    @abstractmethod
    def encode(self, form: F) -> dict[str, Tensor]:
        """Part name -> tensor, as ``layout`` says."""

    @abstractmethod
    def note(self, form: F) -> dict[str, Any]:
        """What ``decode`` needs beside the parts, as JSON data."""

    @abstractmethod
    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> F:
        """The form again; its ``dense()`` has the same bits."""

    def bytes(self, form: F) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.layout(form).values())


class Dense(Encoding[Form]):
    """The float tensor as it is, under the tensor's own name; fits every form."""

    name = "dense"

    def fits(self, form: Form) -> bool:
        return True

    def layout(self, form: Form) -> Parts:
        return {"": Part(form.dtype, tuple(form.shape))}

    def encode(self, form: Form) -> dict[str, Tensor]:
        return {"": form.dense()}

    def note(self, form: Form) -> dict[str, Any]:
        return {}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Form:
        return Plain(parts[""])


class Indexed(Encoding[Any]):
    """The weights that an index stores, written by a payload."""

    def __init__(self, index: Index, payload: Payload[Any]) -> None:
        self.index, self.payload = index, payload
        self.name = "_".join(filter(None, (index.name, payload.name)))

    def fits(self, form: Form) -> bool:
        if not isinstance(form, self.payload.form):
            return False
        return self.index.fits(form.pattern) and self.payload.fits(form, self.index.count(form.pattern))

    def layout(self, form: Any) -> Parts:
        return {**self.index.layout(form.pattern), **self.payload.layout(form, self.index.count(form.pattern))}

    def encode(self, form: Any) -> dict[str, Tensor]:
        stored = self.index.stored(form.mask())
        return {**self.index.encode(stored, form.pattern), **self.payload.encode(form, stored)}

    def note(self, form: Any) -> dict[str, Any]:
        return {**self.payload.note(form), **self.index.note(form.pattern)}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Any:
        return self.payload.decode(note, parts, self.index.decode(note, parts, prod(note["shape"])))


class Both(Encoding[Disjoint]):
    """Body and rest, each by its own smallest encoding."""

    name = "both"

    def fits(self, form: Form) -> bool:
        return isinstance(form, Disjoint)

    def layout(self, form: Disjoint) -> Parts:
        return {
            f"{key}.{name}": part
            for key, own in _parts(form).items()
            for name, part in smallest(own).layout(own).items()
        }

    def encode(self, form: Disjoint) -> dict[str, Tensor]:
        return {
            f"{key}.{name}": part
            for key, own in _parts(form).items()
            for name, part in smallest(own).encode(own).items()
        }

    def note(self, form: Disjoint) -> dict[str, Any]:
        return {key: {"encoding": smallest(own).name, **smallest(own).note(own)} for key, own in _parts(form).items()}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Disjoint:
        return Disjoint(*(_decoded(note[key], _under(key, parts)) for key in ("body", "rest")))


_ALL: list[Encoding[Any]] = [
    Dense(),
    *(Indexed(index, payload) for payload in PAYLOADS for index in INDEXES if index.name or payload.name),
    Both(),
]

ENCODINGS: dict[str, Encoding[Any]] = {encoding.name: encoding for encoding in _ALL}
"""Name in the packed file -> encoding."""


def fitting(form: Form) -> list[Encoding[Any]]:
    """The encodings that can write a form."""
    return [encoding for encoding in ENCODINGS.values() if encoding.fits(form)]


def smallest(form: Form) -> Encoding[Any]:
    """The encoding that takes the fewest bytes; among equals the first of ``ENCODINGS``."""
    return min(fitting(form), key=lambda encoding: encoding.bytes(form))


def encoding_named(name: str) -> Encoding[Any]:
    """The encoding of a packed file. Raises UserError for a name that is not known here."""
    if name not in ENCODINGS:
        raise UserError("packed.encoding", name, f"one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


def _parts(form: Disjoint) -> dict[str, Form]:
    return {"body": form.body, "rest": form.rest}


def _under(key: str, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{key}."): part for name, part in parts.items() if name.startswith(f"{key}.")}


def _decoded(note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Form:
    form: Form = encoding_named(note["encoding"]).decode(note, parts)
    return form
