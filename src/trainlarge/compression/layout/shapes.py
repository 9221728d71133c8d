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
    """Numbers, as in the checkpoint, of the tokens that are left, rising: the new number is the place in here."""

    size: int
    """Entries of the checkpoint's vocabulary."""

    unknown: int
    """Number, as in the checkpoint, of the token as which a removed one is read; it is left."""

    def to_json(self) -> dict[str, Any]:
        """Plain data: one bit an entry, in base64."""
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
    """What a compressed model has left of the shapes of its checkpoint; None and empty stand for everything."""

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

    def to_json(self) -> dict[str, Any]:
        """Plain data of what is not whole."""
        data: dict[str, Any] = {
            "layers": self.layers and list(self.layers),
            "heads": self.heads and [list(kept) for kept in self.heads],
            "neurons": self.neurons and list(self.neurons),
            "ranks": dict(self.ranks),
            "tokens": self.tokens and self.tokens.to_json(),
        }
        return {key: value for key, value in data.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Structure:
        """What ``to_json`` wrote. Raises UserError for a part that is not known here."""
        known = ("layers", "heads", "neurons", "ranks", "tokens")
        for key in data:
            if key not in known:
                raise UserError("packed.structure", key, f"one of {', '.join(known)}")
        heads = data.get("heads")
        return cls(
            layers=_numbers(data.get("layers")),
            heads=heads and tuple(tuple(kept) for kept in heads),
            neurons=_numbers(data.get("neurons")),
            ranks=dict(data.get("ranks", {})),
            tokens=Tokens.from_json(data["tokens"]) if "tokens" in data else None,
        )

    def without_layers(self, kept: list[int], old_names: Mapping[str, str]) -> Structure:
        """With only the layers ``kept``, numbered as they are now.

        Args:
            old_names: name of a module of the layers that stay -> its new name.
        """
        numbers = self.layers
        return replace(
            self,
            layers=tuple(numbers[index] for index in kept) if numbers else tuple(kept),
            heads=self.heads and tuple(self.heads[index] for index in kept),
            neurons=self.neurons and tuple(self.neurons[index] for index in kept),
            ranks={old_names[name]: rank for name, rank in self.ranks.items() if name in old_names},
        )


def _numbers(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
