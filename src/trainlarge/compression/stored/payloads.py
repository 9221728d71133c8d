"""Payloads: how the weights that an index stores are written, for each class of forms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from trainlarge.compression.stored import bits as bit
from trainlarge.compression.stored import container
from trainlarge.compression.stored.container import Part, Parts
from trainlarge.compression.stored.forms import Affine, Codebook, Elementwise, Offset, Plain, Signs
from trainlarge.compression.stored.groups import spread
from trainlarge.compression.stored.indexes import bytes_part, packed_tensor, unpacked
from trainlarge.compression.stored.pattern import nonzero_count, nonzero_places

F = TypeVar("F", bound=Elementwise)


class Payload(ABC, Generic[F]):
    """``layout`` tells, without encoding, exactly what ``encode`` will give."""

    name: str
    """Ends the names of encodings that use it."""

    form: type[F]
    """The class of forms that it can write."""

    def fits(self, form: F, count: int) -> bool:
        """Whether it can write the ``count`` weights that an index stores."""
        return True

    @abstractmethod
    def layout(self, form: F, count: int) -> Parts:
        """Part name -> data type and shape."""

    @abstractmethod
    def encode(self, form: F, stored: Tensor) -> dict[str, Tensor]:
        """Part name -> tensor, as ``layout`` says; ``stored`` is bool [n]."""

    @abstractmethod
    def note(self, form: F) -> dict[str, Any]:
        """What ``decode`` needs beside the parts, as JSON data; ``shape`` among it."""

    @abstractmethod
    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor) -> F:
        """The form again; its ``dense()`` has the same bits."""


class Values(Payload[Plain]):
    """The float values."""

    name, form = "", Plain

    def layout(self, form: Plain, count: int) -> Parts:
        return {"values": Part(form.dtype, (count,))}

    def encode(self, form: Plain, stored: Tensor) -> dict[str, Tensor]:
        return {"values": _stored(form.dense(), stored)}

    def note(self, form: Plain) -> dict[str, Any]:
        return {"shape": list(form.shape)}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor) -> Plain:
        values = torch.zeros(len(stored), dtype=parts["values"].dtype)
        values[stored] = parts["values"]
        return Plain(values.view(note["shape"]))


class Codes(Payload[Affine]):
    """Codes of ``bits`` bits, with step and zero point of each group."""

    name, form = "codes", Affine

    def layout(self, form: Affine, count: int) -> Parts:
        return {"codes": bytes_part(count, form.bits), **_layout({"step": form.step, "zero": form.zero})}

    def encode(self, form: Affine, stored: Tensor) -> dict[str, Tensor]:
        codes = packed_tensor(_stored(form.codes, stored), form.bits)
        return {"codes": codes, "step": form.step, "zero": form.zero}

    def note(self, form: Affine) -> dict[str, Any]:
        return _grouped_note(form, nonzero=form.nonzero)

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor) -> Affine:
        rows, group_size = len(parts["step"]), note.get("group_size")
        columns = len(stored) // rows
        _check_groups(parts["step"], group_size, len(stored))
        if parts["zero"].numel() != 1:
            _check_groups(parts["zero"], group_size, len(stored))
        codes = spread(parts["zero"], group_size, columns).expand(rows, columns).reshape(-1).clone()
        codes[stored] = unpacked(parts["codes"], note["bits"], nonzero_count(stored))
        codes = codes.view(note["shape"])
        return Affine(codes, parts["step"], parts["zero"], note["nonzero"], **_grouped(note))


class OffsetCodes(Payload[Offset]):
    """Codes of ``bits`` bits, with step and offset of each group. Exactly the weights that are left are stored: no code
    stands for 0."""

    name, form = "offset", Offset

    def fits(self, form: Offset, count: int) -> bool:
        return count == form.nonzero

    def layout(self, form: Offset, count: int) -> Parts:
        return {"codes": bytes_part(count, form.bits), **_layout({"step": form.step, "offset": form.offset})}

    def encode(self, form: Offset, stored: Tensor) -> dict[str, Tensor]:
        codes = packed_tensor(_stored(form.codes, stored), form.bits)
        return {"codes": codes, "step": form.step, "offset": form.offset}

    def note(self, form: Offset) -> dict[str, Any]:
        return _grouped_note(form)

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor) -> Offset:
        for scale in (parts["step"], parts["offset"]):
            _check_groups(scale, note.get("group_size"), len(stored))
        codes = torch.zeros(len(stored), dtype=torch.uint8)
        codes[stored] = unpacked(parts["codes"], note["bits"], nonzero_count(stored))
        kept = None if bool(stored.all()) else torch.from_numpy(bit.pack_mask(stored.numpy()))
        return Offset(codes.view(note["shape"]), parts["step"], parts["offset"], kept, **_grouped(note))


class BookCodes(Payload[Codebook]):
    """Codes of ``bits`` bits, with the book of each row. A weight that is not stored takes a code of 0."""

    name, form = "book", Codebook

    def layout(self, form: Codebook, count: int) -> Parts:
        return {"codes": bytes_part(count, form.bits), **_layout({"book": form.book})}

    def encode(self, form: Codebook, stored: Tensor) -> dict[str, Tensor]:
        return {"codes": packed_tensor(_stored(form.codes, stored), form.bits), "book": form.book}

    def note(self, form: Codebook) -> dict[str, Any]:
        return {"shape": list(form.shape), "bits": form.bits, "nonzero": form.nonzero}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor) -> Codebook:
        book = parts["book"]
        codes = (book == 0).byte().argmax(1, keepdim=True).byte().expand(-1, len(stored) // len(book))
        codes = codes.reshape(-1).clone()
        codes[stored] = unpacked(parts["codes"], note["bits"], nonzero_count(stored))
        return Codebook(codes.view(note["shape"]), book, note["bits"], note["nonzero"])


class _SignPayload(Payload[Signs]):
    """What the payloads of signs share: scale and note."""

    form = Signs

    def note(self, form: Signs) -> dict[str, Any]:
        return _grouped_note(form, nonzero=form.nonzero)

    def _form(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor, signs: Tensor) -> Signs:
        _check_groups(parts["scale"], note.get("group_size"), len(stored))
        every = torch.zeros(prod(note["shape"]), dtype=torch.int8)
        every[stored] = signs
        return Signs(every.view(note["shape"]), parts["scale"], note["nonzero"], **_grouped(note))


class SignBits(_SignPayload):
    """One bit a weight: positive or not. No weight that is stored may be 0."""

    name = "signs"

    def fits(self, form: Signs, count: int) -> bool:
        return count == form.pattern.count

    def layout(self, form: Signs, count: int) -> Parts:
        return {"signs": bytes_part(count, 1), **_layout({"scale": form.scale})}

    def encode(self, form: Signs, stored: Tensor) -> dict[str, Tensor]:
        positive = _stored(form.signs, stored) > 0
        return {"signs": torch.from_numpy(bit.pack_mask(positive.numpy())), "scale": form.scale}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor) -> Signs:
        positive = bit.unpack_mask(parts["signs"].numpy(), nonzero_count(stored))
        return self._form(note, parts, stored, torch.from_numpy(positive).to(torch.int8) * 2 - 1)


class Trits(_SignPayload):
    """Five weights of -1, 0 or 1 in a byte: 1.6 bits a weight."""

    name = "trits"

    def layout(self, form: Signs, count: int) -> Parts:
        return {"trits": Part(torch.uint8, (-(-count // 5),)), **_layout({"scale": form.scale})}

    def encode(self, form: Signs, stored: Tensor) -> dict[str, Tensor]:
        trits = (_stored(form.signs, stored) + 1).to(torch.uint8)
        return {"trits": torch.from_numpy(bit.pack_trits(trits.numpy())), "scale": form.scale}

    def decode(self, note: Mapping[str, Any], parts: Mapping[str, Tensor], stored: Tensor) -> Signs:
        trits = bit.unpack_trits(parts["trits"].numpy(), nonzero_count(stored))
        return self._form(note, parts, stored, torch.from_numpy(trits).to(torch.int8) - 1)


_FLOATS = {str(kind).removeprefix("torch."): kind for kind in container.DTYPES if kind.is_floating_point}
PAYLOADS: tuple[Payload[Any], ...] = (Values(), Codes(), OffsetCodes(), BookCodes(), SignBits(), Trits())
"""All payloads; among equals the first is taken."""


def _stored(values: Tensor, stored: Tensor) -> Tensor:
    """The values of a tensor that an index stores, in order."""
    places = nonzero_places(stored)
    flat = values.reshape(-1)
    return flat if len(places) == len(flat) else flat.index_select(0, places)


def _layout(tensors: Mapping[str, Tensor]) -> Parts:
    return {name: Part(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _check_groups(scale: Tensor, group_size: int | None, count: int) -> None:
    """Raises ValueError where ``scale`` is not [rows, groups] of ``count`` weights: it is spread over all of them."""
    rows, groups = scale.shape
    if count % rows or groups != 1 and (group_size is None or groups != -(-count // rows // group_size)):
        raise ValueError(f"{rows} x {groups} groups of {group_size} for {count} weights")


def _dtype(name: str) -> torch.dtype:
    """The data type of a note. Raises ValueError for a name that is none of floats."""
    if name not in _FLOATS:
        raise ValueError(f"data type {name}")
    return _FLOATS[name]


def _grouped_note(form: Affine | Offset | Signs, **own: int) -> dict[str, Any]:
    """What is noted of a form with groups, ``own`` included; a group that is a whole row is not noted."""
    note = {"shape": list(form.shape), "bits": form.bits, "dtype": _name(form.dtype), **own}
    return note | ({"group_size": form.group_size} if form.group_size else {})


def _grouped(note: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``Grouped`` that a note tells."""
    return {"bits": note["bits"], "dtype": _dtype(note["dtype"]), "group_size": note.get("group_size")}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
