"""Structure: what is left of the shapes of a checkpoint, as plain data of the packed file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from trainlarge.compression.stored.bits import unpack_mask
from trainlarge.config.group import Plain
from trainlarge.config.identity import field_names
from trainlarge.config.typed_json import read
from trainlarge.errors import UserError


@dataclass(frozen=True)
class Tokens:
    """The vocabulary that is left."""

    kept: tuple[int, ...]
    """Numbers, as in the checkpoint, of the tokens that are left, rising. The new number of a token is its index."""

    size: int
    """Entries of the checkpoint's vocabulary."""

    unknown: int
    """Number, as in the checkpoint, of the token that replaces removed ones; it is left itself."""

    def to_json(self) -> dict[str, Plain]:
        """Plain data: one bit per entry, in base64."""
        mask = np.zeros(self.size, dtype=bool)
        mask[list(self.kept)] = True
        kept = base64.b64encode(np.packbits(mask, bitorder="little").tobytes()).decode()
        return {"size": self.size, "unknown": self.unknown, "kept": kept}

    @classmethod
    def from_json(cls, data: Plain) -> Tokens:
        """What ``to_json`` wrote."""
        written = read(_TokensJson, data, "tokens")
        packed = np.frombuffer(base64.b64decode(written.kept), dtype=np.uint8)
        mask = unpack_mask(packed, written.size)
        return cls(tuple(np.flatnonzero(mask).tolist()), written.size, written.unknown)


@dataclass(frozen=True)
class _TokensJson:
    """The JSON data of ``Tokens``."""

    size: int
    unknown: int
    kept: str
    """One bit per entry, in base64."""


@dataclass(frozen=True)
class _StructureJson:
    """The JSON data of ``Structure``."""

    layers: tuple[int, ...] | None = None
    heads: tuple[tuple[int, ...], ...] | None = None
    neurons: tuple[int, ...] | None = None
    ranks: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, Plain] | None = None


@dataclass(frozen=True)
class Structure:
    """What a compressed model has left of the shapes of its checkpoint; None and empty mean that all is left."""

    layers: tuple[int, ...] | None = None
    """Layers that are left, numbered as in the checkpoint."""

    heads: tuple[tuple[int, ...], ...] | None = None
    """Of each layer that is left, the heads that are left, numbered as in the checkpoint."""

    neurons: tuple[int, ...] | None = None
    """Of each layer that is left, how many neurons are left."""

    ranks: Mapping[str, int] = field(default_factory=dict)
    """Name of a factorized layer, as in the model that is left -> rank of the product."""

    tokens: Tokens | None = None
    """The vocabulary that is left."""

    def __bool__(self) -> bool:
        """Whether anything is removed or factorized."""
        return self != Structure()

    def to_json(self) -> dict[str, Plain]:
        """Plain data, only of what is smaller than in the checkpoint."""
        data: dict[str, Plain] = {}
        if self.layers is not None:
            data["layers"] = list(self.layers)
        if self.heads is not None:
            data["heads"] = [list(kept) for kept in self.heads]
        if self.neurons is not None:
            data["neurons"] = list(self.neurons)
        if self.ranks:
            data["ranks"] = dict(self.ranks)
        if self.tokens is not None:
            data["tokens"] = self.tokens.to_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Plain]) -> Structure:
        """What ``to_json`` wrote.

        Raises:
            UserError: for a part that is not known here.
            JsonTypeError: for a value of another type.
        """
        for key in data:
            if key not in field_names(_StructureJson):
                allowed = f"one of {', '.join(field_names(_StructureJson))}"
                raise UserError("packed.structure", key, allowed)
        written = read(_StructureJson, data)
        tokens = None if written.tokens is None else Tokens.from_json(written.tokens)
        return cls(written.layers, written.heads, written.neurons, written.ranks, tokens)

    def without_layers(self, kept: list[int], old_names: Mapping[str, str]) -> Structure:
        """With only the layers ``kept``, numbered as they are now.

        Args:
            old_names: name of a module of the layers that stay -> its new name.
        """
        return replace(
            self,
            layers=tuple(kept) if self.layers is None else tuple(self.layers[index] for index in kept),
            heads=None if self.heads is None else tuple(self.heads[index] for index in kept),
            neurons=None if self.neurons is None else tuple(self.neurons[index] for index in kept),
            ranks={old_names[name]: rank for name, rank in self.ranks.items() if name in old_names},
        )
