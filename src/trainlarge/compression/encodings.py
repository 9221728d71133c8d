"""Encodings: how a form is written as named parts of the packed file; each tensor takes the smallest that fits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainlarge.compression import bits as bit
from trainlarge.compression.container import Part, Parts
from trainlarge.compression.forms import Affine, Form, Plain
from trainlarge.errors import UserError

F = TypeVar("F", bound=Form)
E = TypeVar("E", bound="type[Encoding[Any]]")

ENCODINGS: dict[str, Encoding[Any]] = {}
"""Name in the packed file -> encoding."""


class Encoding(ABC, Generic[F]):
    """One way to write a form. ``layout`` tells, without encoding, exactly what ``encode`` will give."""

    name: str
    """As written in the packed file."""

    form: type
    """The class of forms that it can write; ``object`` for all."""

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


def encoding(name: str, form: type) -> Callable[[E], E]:
    """Class decorator: makes an encoding known under ``name`` for one class of forms."""

    def register(cls: E) -> E:
        cls.name, cls.form = name, form
        ENCODINGS[name] = cls()
        return cls

    return register


def smallest(form: Form) -> Encoding[Any]:
    """The encoding that takes the fewest bytes; among equals the one registered first."""
    fitting = [encoding for encoding in ENCODINGS.values() if isinstance(form, encoding.form)]
    return min(fitting, key=lambda encoding: encoding.bytes(form))


def encoding_named(name: str) -> Encoding[Any]:
    """The encoding of a packed file. Raises UserError for a name that is not known here."""
    if name not in ENCODINGS:
        raise UserError("packed.encoding", name, f"one of {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


@encoding("dense", object)
class Dense(Encoding[Form]):
    """The float tensor as it is, under the tensor's own name; fits every form."""

    def layout(self, form: Form) -> Parts:
        return {"": Part(form.dtype, tuple(form.shape))}

    def encode(self, form: Form) -> dict[str, Tensor]:
        return {"": form.dense()}

    def note(self, form: Form) -> dict[str, Any]:
        return {}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Form:
        return Plain(parts[""])


@encoding("sparse", Plain)
class Sparse(Encoding[Plain]):
    """A mask of one bit a weight, and the values that are not zero."""

    def layout(self, form: Plain) -> Parts:
        return {"mask": _bytes_part(form.shape.numel(), 1), "values": Part(form.dtype, (form.stored,))}

    def encode(self, form: Plain) -> dict[str, Tensor]:
        mask = form.patterns() != 0
        return {"mask": _mask_tensor(mask), "values": form.values.reshape(-1)[mask]}

    def note(self, form: Plain) -> dict[str, Any]:
        return {"shape": list(form.shape)}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Plain:
        values = torch.zeros(prod(note["shape"]), dtype=parts["values"].dtype)
        values[_mask(parts["mask"], len(values))] = parts["values"]
        return Plain(values.view(note["shape"]))


class _AffineEncoding(Encoding[Affine]):
    """What the encodings of rounded weights share: step, zero point and note."""

    def _scale_layout(self, form: Affine) -> Parts:
        return {name: Part(tensor.dtype, tuple(tensor.shape)) for name, tensor in self._scale(form).items()}

    def _scale(self, form: Affine) -> dict[str, Tensor]:
        return {"step": form.step, "zero": form.zero}

    def note(self, form: Affine) -> dict[str, Any]:
        dtype = str(form.dtype).removeprefix("torch.")
        return {"shape": list(form.shape), "bits": form.bits, "dtype": dtype, "nonzero": form.nonzero}

    def _form(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], codes: Tensor) -> Affine:
        return Affine(
            codes=codes.view(note["shape"]),
            step=parts["step"],
            zero=parts["zero"],
            bits=note["bits"],
            dtype=getattr(torch, note["dtype"]),
            nonzero=note["nonzero"],
        )


@encoding("codes", Affine)
class Codes(_AffineEncoding):
    """The code of every weight."""

    def layout(self, form: Affine) -> Parts:
        return {"codes": _bytes_part(form.shape.numel(), form.bits), **self._scale_layout(form)}

    def encode(self, form: Affine) -> dict[str, Tensor]:
        return {"codes": _packed_tensor(form.codes.view(-1), form.bits), **self._scale(form)}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Affine:
        return self._form(note, parts, _codes(parts["codes"], note["bits"], prod(note["shape"])))


@encoding("sparse_codes", Affine)
class SparseCodes(_AffineEncoding):
    """A mask of one bit a weight, and the codes of the weights that are not zero."""

    def layout(self, form: Affine) -> Parts:
        mask, codes = _bytes_part(form.shape.numel(), 1), _bytes_part(form.stored, form.bits)
        return {"mask": mask, "codes": codes, **self._scale_layout(form)}

    def encode(self, form: Affine) -> dict[str, Tensor]:
        mask = form.mask().view(-1)
        codes = _packed_tensor(form.codes.view(-1)[mask], form.bits)
        return {"mask": _mask_tensor(mask), "codes": codes, **self._scale(form)}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor]) -> Affine:
        count, groups = prod(note["shape"]), len(parts["step"])
        mask = _mask(parts["mask"], count)
        codes = parts["zero"].expand(groups, count // groups).reshape(-1).clone()
        codes[mask] = _codes(parts["codes"], note["bits"], int(torch.count_nonzero(mask)))
        return self._form(note, parts, codes)


def _bytes_part(count: int, bits: int) -> Part:
    return Part(torch.uint8, (bit.packed_bytes(count, bits),))


def _packed_tensor(codes: Tensor, bits: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(bit.pack(codes.numpy(), bits)))


def _codes(packed: Tensor, bits: int, count: int) -> Tensor:
    return torch.from_numpy(bit.unpack(packed.numpy(), bits, count))


def _mask_tensor(mask: Tensor) -> Tensor:
    return torch.from_numpy(bit.pack_mask(mask.numpy()))


def _mask(packed: Tensor, count: int) -> Tensor:
    return torch.from_numpy(bit.unpack_mask(packed.numpy(), count))
