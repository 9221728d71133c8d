"""Removing attention heads and feed-forward neurons."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from trainlarge.compression.layout.encoder import Block
from trainlarge.compression.registry import Shared, reshapes
from trainlarge.compression.structure.calibrated_importance import gate_importance
from trainlarge.compression.structure.cut import Kind, encoder_of, keep_units
from trainlarge.compression.structure.importance import weight_importance
from trainlarge.compression.weights import Weights
from trainlarge.config.structure import Heads, Neurons, Units, kept_units


@reshapes(Heads, Neurons)
def units(method: Units, weights: Weights, shared: Shared) -> Weights:
    """Keep the most important heads or neurons."""
    kind: Kind = "heads" if isinstance(method, Heads) else "neurons"
    blocks: tuple[Block, ...] = getattr(encoder_of(weights, f"structure.name={kind}"), kind)

    def rank() -> list[Tensor]:
        if method.importance == "gradient":
            return gate_importance(method, weights, shared, blocks)
        return [weight_importance(weights, kind, block) for block in blocks]

    importance = shared.once((kind, method.importance, method.calibration_rows), rank)
    return keep_units(weights, kind, _SCOPES[method.scope](importance, method.keep))


def keep_in_layers(importance: list[Tensor], share: float) -> list[Tensor]:
    """Of each layer the max(1, round(share * n)) most important units, rising; among equals the first ones."""
    return [_best(values, kept_units(share, len(values))) for values in importance]


def keep_globally(importance: list[Tensor], share: float) -> list[Tensor]:
    """The max(layers, round(share * n)) most important units of all layers, the best of each layer among them."""
    count = max(len(importance), round(share * sum(map(len, importance))))
    # The best of a layer goes before everything else, so that no layer is left without a unit.
    raised = [values.index_fill(0, _best(values, 1), torch.inf) for values in importance]
    kept = _best(torch.cat(raised), count)
    starts = torch.tensor([0, *map(len, importance)]).cumsum(0)
    return [kept[(kept >= start) & (kept < end)] - start for start, end in pairwise(starts)]


def _best(values: Tensor, count: int) -> Tensor:
    return values.argsort(descending=True, stable=True)[:count].sort().values


_SCOPES = {"layer": keep_in_layers, "global": keep_globally}
