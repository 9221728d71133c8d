"""What of a model decides which recipes fit it. No torch: a plan knows it before the model exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Matrices:
    """Matrices of one kind."""

    what: str
    """What they are called."""
    columns: int | None
    """Size of the last dimension; None where the weights decide it."""
    are_embeddings: bool = False
    """Whether they are tables of vectors."""


@dataclass(frozen=True)
class UnitSizes:
    """Attention heads or feed-forward neurons of each layer."""

    count: int
    """How many a layer has."""
    width: int
    """Channels of one."""
    output: str
    """``Matrices.what`` of the matrices that lead out of them, with a column for each channel."""


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a model, or of what steps of a recipe leave of it; None where they are not known."""

    architecture: str
    """What it is called in errors."""
    matrices: tuple[Matrices, ...] = ()
    """Those that methods act on."""
    layers: int | None = None
    """Layers."""
    has_known_layers: bool = True
    """Whether structured pruning knows its layers."""
    units: Mapping[str, UnitSizes] = field(default_factory=dict)
    """``heads`` and ``neurons``, where every layer has as many."""
    tokens: int | None = None
    """Entries of the vocabulary."""
    tokens_that_stay: int = 0
    """Those that no cut of the vocabulary removes, at least."""

    def with_columns(self, what: Iterable[str], columns: int | None) -> ModelSizes:
        """With other columns of some matrices."""
        names = frozenset(what)
        changed = (replace(one, columns=columns) if one.what in names else one for one in self.matrices)
        return replace(self, matrices=tuple(changed))
