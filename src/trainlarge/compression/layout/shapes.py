"""Structure: what is left of the shapes of a checkpoint, as plain data of the packed file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trainlarge.compression.stored.bits import unpack_mask
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

    def to_json(self) -> dict[str, object]:
        """Plain data: one bit per entry, in base64."""
        mask = np.zeros(self.size, dtype=bool)
        mask[list(self.kept)] = True
        kept = base64.b64encode(np.packbits(mask, bitorder="little").tobytes()).decode()
        return {"size": self.size, "unknown": self.unknown, "kept": kept}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tokens:
        """What ``to_json`` wrote."""
        packed = np.frombuffer(base64.b64decode(data["kept"]), dtype=np.uint8)
        mask = unpack_mask(packed, data["size"])
        return cls(tuple(np.flatnonzero(mask).tolist()), data["size"], data["unknown"])


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

    def to_json(self) -> dict[str, object]:
        """Plain data, only of what is smaller than in the checkpoint."""
        data: dict[str, object] = {}
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
    def from_json(cls, data: Mapping[str, Any]) -> Structure:
        """What ``to_json`` wrote. Raises UserError for a part that is not known here."""
        known = ("layers", "heads", "neurons", "ranks", "tokens")
        for key in data:
            if key not in known:
                raise UserError("packed.structure", key, f"one of {', '.join(known)}")
        return cls(
            layers=_numbers(data.get("layers")),
            heads=tuple(tuple(kept) for kept in data["heads"]) if "heads" in data else None,
            neurons=_numbers(data.get("neurons")),
            ranks=dict(data.get("ranks", {})),
            tokens=Tokens.from_json(data["tokens"]) if "tokens" in data else None,
        )

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


def _numbers(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
