"""The steps of a recipe, carried out one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import cast

import torch
from torch import Tensor

from trainlarge.compression.calibration import Batch, Calibration
from trainlarge.compression.input_ranges import Ranges
from trainlarge.compression.layout.tokens import renumbered, renumbered_batch
from trainlarge.compression.registry import (
    Applies,
    Apply,
    Reshape,
    Reshapes,
    Rounds,
    Shared,
    StoredTensors,
    Train,
    TrainingStart,
    Trains,
    Waits,
    action_of,
    modifier_of,
)
from trainlarge.compression.stored.keep_codes import TensorState, prune_codes, slice_codes
from trainlarge.compression.stored.stored_tensor import DenseWeights, StoredTensor
from trainlarge.compression.tickets import ticket
from trainlarge.compression.training import NO_TRAINING, Learned, Learns, TrainingCost
from trainlarge.compression.weights import Weights
from trainlarge.config.method import MatrixMethod, Method
from trainlarge.config.prune import Zeroing
from trainlarge.config.recover import Recovery
from trainlarge.errors import UserError


@dataclass(frozen=True, eq=False)
class RecipeState:
    """A checkpoint after some steps of a recipe."""

    weights: Weights
    """What is left of it; the tensors are as they were when shapes last changed."""

    stored: StoredTensors
    """How its tensors are stored now."""

    shared: Shared
    """What the recipes that continue from here share."""

    unrounded: StoredTensors = field(default_factory=dict)
    """The quantized matrices as they were before quantization, if no pruning followed."""

    ranges: Ranges = field(default_factory=dict)
    """The layers whose inputs are quantized, with their ranges."""

    done: tuple[Method, ...] = ()
    """The steps, in their order."""

    training: TrainingCost | None = None
    """What training took, all steps that trained together; None where none did."""


def carried_out(step: Method, state: RecipeState, ahead: tuple[Method, ...] = ()) -> RecipeState:
    """The state after one more step.

    Args:
        ahead: later steps that take part in this one (``Method.ahead``).

    Raises:
        UserError: the step does not fit the model, or cannot be computed on these weights.
    """
    try:
        return replace(_after(step, ahead, state), done=(*state.done, step))
    except torch.linalg.LinAlgError as error:
        allowed = f"a method that can be computed on these weights: {error}"
        raise UserError(f"{step.slot}.name", step.name, allowed) from error


def _after(step: Method, ahead: tuple[Method, ...], state: RecipeState) -> RecipeState:
    match action_of(step):
        case Reshapes(reshape):
            return _reshaped(step, reshape, state)
        case Rounds(function):
            return replace(state, ranges=function(step, state.weights, state.stored, state.shared))
        case Trains(plan_of):
            return _trained(step, ahead, plan_of, state)
        case Applies(apply):
            return _with_values(cast(MatrixMethod, step), apply, state)
        case Waits():
            _names_of(cast(MatrixMethod, step), state)
            return state


def _with_values(step: MatrixMethod, apply: Apply[MatrixMethod], state: RecipeState) -> RecipeState:
    """After a step that changes the values of matrices."""
    before = {name: state.stored[name] for name in _names_of(step, state)}
    after = _applied(step, apply, before, state)
    _check_left(step, after.values())
    stored = {**state.stored, **{name: prune_codes(before[name], tensor) for name, tensor in after.items()}}
    unrounded = {name: tensor for name, tensor in state.unrounded.items() if name not in after}
    return replace(state, stored=stored, unrounded=unrounded | (before if step.slot == "quantize" else {}))


def _names_of(step: MatrixMethod, state: RecipeState) -> list[str]:
    """The matrices that a step acts on. Raises UserError where there are none."""
    names = state.weights.selected(step.embeddings)
    if not names:
        parts = {"embeddings": not step.embeddings, "head": state.weights.is_head_whole}
        left_out = " and ".join(part for part, is_left_out in parts.items() if is_left_out)
        allowed = "used for a model with matrices" + (f" other than its {left_out}" if left_out else "")
        raise UserError(f"{step.slot}.name={step.name}", state.weights.architecture, allowed)
    return names


def _check_left(step: Method, after: Iterable[StoredTensor]) -> None:
    """Refuse pruning that leaves nothing of the matrices that it acts on."""
    if isinstance(step, Zeroing) and not any(tensor.nonzero for tensor in after):
        kind = "share" if step.strength == "sparsity" else "number"
        allowed = f"a {kind} that leaves weights in the matrices of this model"
        raise UserError(f"prune.{step.strength}", getattr(step, step.strength), allowed)


def _applied(
    step: MatrixMethod, apply: Apply[MatrixMethod], matrices: StoredTensors, state: RecipeState
) -> dict[str, StoredTensor]:
    """``matrices`` after a method, which may act otherwise on embeddings."""
    of_embeddings = step.of_embeddings()
    if of_embeddings == step:
        return apply(step, DenseWeights(matrices), state.shared)
    tables = DenseWeights({name: tensor for name, tensor in matrices.items() if name in state.weights.embeddings})
    body = DenseWeights({name: tensor for name, tensor in matrices.items() if name not in tables})
    return {**apply(step, body, state.shared), **apply(of_embeddings, tables, state.shared)}


def _reshaped(step: Method, reshape: Reshape[Method], state: RecipeState) -> RecipeState:
    """After a step that changes shapes, which acts on the rounded weights."""
    before = replace(state.weights, tensors={name: tensor.dense() for name, tensor in state.stored.items()})
    after = reshape(step, before, state.shared)
    states = {name: TensorState(tensor, state.unrounded.get(name)) for name, tensor in state.stored.items()}
    sliced = slice_codes(before, after, states)
    return replace(
        state,
        weights=after,
        stored={name: one.stored for name, one in sliced.items()},
        shared=replace(state.shared, calibration=_calibration_of(after, state)),
        unrounded={name: one.unrounded for name, one in sliced.items() if one.unrounded is not None},
    )


def _trained(step: Method, ahead: tuple[Method, ...], plan_of: Train[Method], state: RecipeState) -> RecipeState:
    """After a step that trains, from the rounded weights on; the result is floats."""
    trainer = state.shared.trainer_of(step)
    before = replace(state.weights, tensors={name: tensor.dense() for name, tensor in state.stored.items()})
    plan, earlier = plan_of(step, before, trainer.parent), state.training or NO_TRAINING
    if isinstance(step, Recovery) and step.rewinds:
        before, held = ticket(step, before, trainer, (*state.done, step), ahead)
        plan = replace(plan, modifiers=[held, *plan.modifiers])
    pruning = tuple(part for part in state.done if part.slot == "prune" and part.while_training)
    others = (*pruning, *ahead)
    calibration = _calibration_of(before, state) if any(part.calibrated for part in others) else None
    shared = replace(state.shared, calibration=calibration, learned=Learned(), memory={})
    begins_at = plan.begins_at(trainer.parent, earlier)
    start = TrainingStart(step, before, shared, others, begins_at, plan.steps, plan.rate)
    modifiers = [*plan.modifiers, *(modifier_of(part, start) for part in others)]
    trained = trainer.train(replace(plan, modifiers=modifiers), (*state.done, step), ahead, before, earlier)
    stored = trained.weights.as_stored()
    for part in pruning:
        _check_left(part, (stored[name] for name in _names_of(cast(MatrixMethod, part), state)))
    learned = reduce(or_, (part.learned() for part in modifiers if isinstance(part, Learns)), Learned())
    return replace(
        state,
        weights=trained.weights,
        stored=stored,
        shared=replace(shared, calibration=_calibration_of(trained.weights, state), learned=learned),
        unrounded={},
        training=earlier.followed_by(trained.cost),
    )


def _calibration_of(weights: Weights, state: RecipeState) -> Calibration | None:
    """The calibration of a model of the new shapes, which reads the tokens that are left."""
    before = state.shared.calibration
    if before is None:
        return None
    is_cut = weights.structure.tokens != state.weights.structure.tokens
    tokens = weights.structure.tokens if is_cut else None
    batches = before.batches

    def in_vocabulary(batch: Batch) -> Batch:
        return renumbered(batch, tokens) if isinstance(batch, Tensor) else renumbered_batch(batch, tokens)

    return Calibration(weights, before.model_of(weights), lambda: map(in_vocabulary, batches()))
