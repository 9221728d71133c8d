"""Names of the linear layers within one layer of an architecture: what structured pruning and width transfer act on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnitLayout:
    """Linear layers around units that stand side by side: attention heads, or feed-forward neurons."""

    inputs: tuple[str, ...]
    """Linear layers that lead into the units, relative to the layer. For attention: query, key and value, in this
    order, or one joint layer."""

    parts: int
    """How often all units follow each other in the rows of an input: 3 for joint query, key and value, 2 for a joint
    gated feed-forward network, else 1."""

    output: str
    """Linear layer that leads out of the units."""


@dataclass(frozen=True)
class LayerLayout:
    """Where the heads and neurons of one layer are, by the names of the library's modules."""

    attention: str
    """The module that knows the width of a head."""

    head_width: str
    """Its attribute."""

    heads: UnitLayout
    neurons: UnitLayout
