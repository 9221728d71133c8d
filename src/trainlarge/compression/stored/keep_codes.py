"""Quantized weights stay codes when a later step of the recipe only prunes them or removes rows or columns.

Methods work on float tensors. What they return is compared with what they were given: the codes are kept where they can
follow the change, and otherwise the tensor is stored as floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.pattern import nonzero_count
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.weights import Weights


@dataclass(frozen=True, eq=False)
class TensorState:
    """A tensor after some steps of a recipe."""

    stored: StoredTensor
    """How it is stored."""

    unrounded: StoredTensor | None = None
    """The tensor before quantization, whose weights that are not 0 count; None: as it is now."""

    def slice(self, dimension: int, kept: Tensor) -> TensorState | None:
        """The indices ``kept`` of a dimension; None where the codes cannot be sliced there."""
        before = self.stored if self.unrounded is None else self.unrounded
        unrounded = before.dense().index_select(dimension, kept)
        stored = self.stored.slice(dimension, kept, nonzero_count(unrounded))
        return None if stored is None else TensorState(stored, Dense(unrounded))


def prune_codes(before: StoredTensor, after: StoredTensor) -> StoredTensor:
    """``after`` as codes of ``before``, where it is ``before`` with more zeros; otherwise ``after`` itself.

    The non-zero weights are then those that are not 0 now, also where rounding made them 0.
    """
    if isinstance(before, Dense) or not isinstance(after, Dense):
        return after
    values = after.dense()
    is_zero = values == 0
    if not torch.equal(before.dense().masked_fill(is_zero, 0.0), values):
        return after
    pruned = before.with_zeros(is_zero)
    return after if pruned is None else pruned


def slice_codes(before: Weights, after: Weights, states: Mapping[str, TensorState]) -> dict[str, TensorState]:
    """The states of the tensors of ``after``, which a step that changes shapes made of ``before``.

    A tensor that the step did not touch keeps its state, one of which rows or columns are left keeps its codes where
    that is possible, and every other one is stored as floats.

    Args:
        states: of the tensors of ``before``.
    """
    untouched = {id(tensor): states[name] for name, tensor in before.tensors.items()}
    sliced: dict[str, TensorState] = {}
    for name, tensor in after.tensors.items():
        state = untouched.get(id(tensor))
        if state is None:
            state = _sliced(name, before, after, states)
        sliced[name] = TensorState(Dense(tensor)) if state is None else state
    return sliced


def _sliced(name: str, before: Weights, after: Weights, states: Mapping[str, TensorState]) -> TensorState | None:
    """The state of a tensor as codes; None where it had none, or where something else than slicing was done to it."""
    if name not in states or isinstance(states[name].stored, Dense):
        return None
    kept = _kept_indices(name, before, after)
    return None if kept is None else states[name].slice(*kept)


def _kept_indices(name: str, before: Weights, after: Weights) -> tuple[int, Tensor] | None:
    """The dimension in which a tensor was sliced and the indices that stayed; None where something else was done."""
    old, new = before.tensors[name], after.tensors[name]
    origin, places = before.origin(name), after.origin(name).places
    changed = [dimension for dimension in places if new.shape[dimension] != old.shape[dimension]]
    if old.ndim != new.ndim or len(changed) != 1:
        return None
    [dimension] = changed
    index = torch.searchsorted(origin.places.get(dimension, torch.arange(old.shape[dimension])), places[dimension])
    return (dimension, index) if torch.equal(old.index_select(dimension, index), new) else None
