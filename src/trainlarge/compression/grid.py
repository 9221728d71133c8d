"""Compress a model by one recipe, or a checkpoint by many recipes that share their work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn

from trainlarge.compression.activation_quantization import Ranges
from trainlarge.compression.calibration import Batch, Calibration
from trainlarge.compression.layout.tokens import TokenFacts, renumbered, renumbered_batch
from trainlarge.compression.registry import (
    Applies,
    Apply,
    Reshape,
    Reshapes,
    Rounds,
    Shared,
    StoredTensors,
    Train,
    Trains,
    action_of,
)
from trainlarge.compression.stored.keep_codes import TensorState, prune_codes, slice_codes
from trainlarge.compression.stored.packing import Packed
from trainlarge.compression.stored.sizes import Sizes
from trainlarge.compression.stored.stored_tensor import DenseWeights, StoredTensor
from trainlarge.compression.training import Trainer, TrainingCost
from trainlarge.compression.training_data import DataTrainer, TrainingData
from trainlarge.compression.weights import Weights, load_reshaped
from trainlarge.config.method import MatrixMethod, Method
from trainlarge.config.prune import Pruning
from trainlarge.config.recipe import Recipe
from trainlarge.errors import UserError
from trainlarge.models.fake_quantize import fake_quantize_inputs


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model: the float weights to evaluate, what goes to the packed file, and the sizes."""

    recipe: Recipe
    """How it was made."""

    packed: Packed
    """What goes to the packed file; quantized weights are held here as codes of one byte."""

    sizes: Sizes
    """Parameters, ideal bytes and bytes of the packed file."""

    left: Weights
    """What is left of the checkpoint: names, shapes and modules. Its tensors are those before the last rounding."""

    training: TrainingCost | None = None
    """What training took, where the recipe trains."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Tensor name -> rounded float tensor, tied ones once; ``load_stored`` puts them into a model of these shapes.

        Tensors that were rounded are made whenever they are asked for; those that the recipe left alone are shared with
        the snapshot: read only.
        """
        return DenseWeights(self.packed.stored)

    @property
    def has_other_shapes(self) -> bool:
        """Whether the weights no longer fit into a model with the shapes of the checkpoint."""
        return bool(self.left.structure)

    def model(self) -> nn.Module:
        """A new model with these weights, ready to use; what was not rounded is held itself, so leave it as it is.

        Where the recipe rounds activations, so does the model.
        """
        model = replace(self.left, tensors=self.weights).model()
        fake_quantize_inputs(model, self.packed.quantizers)
        return model

    def expanded(self) -> Mapping[str, Tensor]:
        """The weights in the names and shapes of the checkpoint: 0 where something was removed, factors multiplied.

        Without factors and with the whole vocabulary, a model of the checkpoint's shapes that holds them (the masked
        model) gives the same logits.
        """
        return self.left.expanded(self.weights)


@dataclass(frozen=True, eq=False)
class _State:
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
    """What training took, where a step trained."""


def compress(
    model: nn.Module,
    recipe: Recipe,
    inplace: bool = False,
    calibration: Iterable[Batch] | None = None,
    tokens: TokenFacts | None = None,
    training: TrainingData | None = None,
) -> Compressed:
    """Compress a Hugging Face model (or any torch module) by a recipe.

    Args:
        model: left as it is, unless ``inplace``.
        recipe: ``Recipe(prune=Magnitude(sparsity=0.6), quantize=Uniform(bits=4))``.
        inplace: also give ``model`` the compressed float weights, their shapes and the rounding of activations.
        calibration: batches of inputs, for methods that look at activations (Wanda, GPTQ, static ranges): tensors, or
            mappings of keyword arguments of the model's forward pass; with ``labels`` where importance is by gradient.
        tokens: what is known of a text's tokens, for methods that cut the vocabulary.
        training: what methods train on that train (``recover``).

    Raises UserError where a weight is NaN or infinite (it names the tensor), and where a method needs calibration data
    and there is none.
    """
    weights = Weights.of(model)
    batches = None if calibration is None else list(calibration)
    statistics = None if batches is None else Calibration(weights, model, lambda: batches)
    trainer = None if training is None else DataTrainer(training)
    [(_, compressed)] = compress_grid(weights, [recipe], statistics, tokens, trainer=trainer)
    if inplace:
        load_reshaped(model, compressed.left.structure, compressed.weights)
        fake_quantize_inputs(model, compressed.packed.quantizers)
    return compressed


def compress_grid(
    weights: Weights,
    recipes: Sequence[Recipe],
    calibration: Calibration | None = None,
    tokens: TokenFacts | None = None,
    refused: Callable[[int, UserError], None] | None = None,
    trainer: Trainer | None = None,
) -> Iterator[tuple[int, Compressed]]:
    """Compress one checkpoint by many recipes: yields (position in ``recipes``, result), each as if computed alone.

    A recipe that does not fit the model (a layer that is not there, nothing left) or needs calibration data where there
    is none is passed to ``refused`` with its position, and the others continue; without ``refused`` it raises.

    Recipes with the same first steps come one after the other, whatever their order in ``recipes``: each first step is
    carried out once for all of them, and weights are ranked once for all sparsities. Beside ``weights`` it holds, for
    the recipe at hand, a bit of each weight where it prunes and a byte of each where it quantizes. Methods that correct
    weights (SparseGPT, GPTQ; half of it for ``Mixed``) hold more: H and its factor [in, in] of every linear layer in
    float32, of one number of rows and one damping at a time, 1 GB at width 768 and depth 12; SparseGPT a pruned copy.
    """
    everything = tuple(step for recipe in recipes for step in recipe.steps)
    shared = Shared(methods=everything, calibration=calibration, tokens=tokens, trainer=trainer)
    start = _State(weights, weights.as_stored(), shared)
    branches = [(position, recipe, recipe.steps) for position, recipe in enumerate(recipes)]
    yield from _branches(branches, start, refused or _raise)


_Branch = tuple[int, Recipe, tuple[Method, ...]]
"""Position in the grid, the recipe, and its steps that are left to do."""


def _branches(
    branches: Sequence[_Branch], state: _State, refused: Callable[[int, UserError], None]
) -> Iterator[tuple[int, Compressed]]:
    """The results of recipes that have come to the same state. A state is freed when its last recipe is done."""
    for position, recipe, steps in branches:
        if not steps:
            packed = Packed.of(recipe, state.weights, state.stored, state.ranges)
            sizes = Sizes.of(state.weights, packed)
            yield position, Compressed(recipe, packed, sizes, state.weights, state.training)
    going_on = [branch for branch in branches if branch[2]]
    # Only what is asked of this very state: what another one remembers is about other weights.
    shared = replace(state.shared, methods=tuple(steps[0] for _, _, steps in going_on), memory={})
    for step in sorted(dict.fromkeys(steps[0] for _, _, steps in going_on), key=_statistics):
        alike = [(position, recipe, steps[1:]) for position, recipe, steps in going_on if steps[0] == step]
        try:
            after = replace(_after(step, replace(state, shared=shared)), done=(*state.done, step))
        except (UserError, torch.linalg.LinAlgError) as error:
            for position, _, _ in alike:
                refused(position, _as_user_error(error, step))
        else:
            yield from _branches(alike, after, refused)
            del after


def _statistics(step: Method) -> tuple[int, float]:
    """Equal for steps that need the same statistics of the calibration, which keeps the large ones of one kind only."""
    return getattr(step, "calibration_rows", 0), getattr(step, "damping", 0.0)


def _as_user_error(error: UserError | torch.linalg.LinAlgError, step: Method) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(f"{step.slot}.name", step.name, f"a method that can be computed on these weights: {error}")


def _raise(_position: int, error: UserError) -> None:
    raise error


def _after(step: Method, state: _State) -> _State:
    match action_of(step):
        case Reshapes(reshape):
            return _reshaped(step, reshape, state)
        case Rounds(function):
            return replace(state, ranges=function(step, state.weights, state.stored, state.shared))
        case Trains(plan_of):
            return _trained(step, plan_of, state)
        case Applies(apply):
            return _with_values(cast(MatrixMethod, step), apply, state)


def _with_values(step: MatrixMethod, apply: Apply, state: _State) -> _State:
    """After a step that changes the values of matrices."""
    names = state.weights.selected(step.embeddings)
    if not names:
        allowed = f"used for a model with matrices{'' if step.embeddings else ' other than its embeddings'}"
        raise UserError(f"{step.slot}.name={step.name}", state.weights.architecture, allowed)
    before = {name: state.stored[name] for name in names}
    after = _applied(step, apply, before, state)
    if isinstance(step, Pruning) and not any(tensor.nonzero for tensor in after.values()):
        raise UserError("prune.sparsity", step.sparsity, "a share that leaves weights in the matrices of this model")
    stored = {**state.stored, **{name: prune_codes(before[name], tensor) for name, tensor in after.items()}}
    unrounded = {name: tensor for name, tensor in state.unrounded.items() if name not in after}
    return replace(state, stored=stored, unrounded=unrounded | (before if step.slot == "quantize" else {}))


def _applied(step: MatrixMethod, apply: Apply, matrices: StoredTensors, state: _State) -> dict[str, StoredTensor]:
    """``matrices`` after a method, which may act otherwise on embeddings."""
    of_embeddings = step.of_embeddings()
    if of_embeddings == step:
        return apply(step, DenseWeights(matrices), state.shared)
    tables = DenseWeights({name: tensor for name, tensor in matrices.items() if name in state.weights.embeddings})
    body = DenseWeights({name: tensor for name, tensor in matrices.items() if name not in tables})
    return {**apply(step, body, state.shared), **apply(of_embeddings, tables, state.shared)}


def _reshaped(step: Method, reshape: Reshape, state: _State) -> _State:
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


def _trained(step: Method, plan_of: Train, state: _State) -> _State:
    """After a step that trains, from the rounded weights on; the result is floats."""
    trainer = state.shared.trainer_of(step)
    before = replace(state.weights, tensors={name: tensor.dense() for name, tensor in state.stored.items()})
    trained = trainer.train(plan_of(step, before, trainer.parent), (*state.done, step), before)
    return replace(
        state,
        weights=trained.weights,
        stored=trained.weights.as_stored(),
        shared=replace(state.shared, calibration=_calibration_of(trained.weights, state)),
        unrounded={},
        training=trained.cost,
    )


def _calibration_of(weights: Weights, state: _State) -> Calibration | None:
    """The calibration of a model of the new shapes, which reads the tokens that are left."""
    before = state.shared.calibration
    if before is None:
        return None
    device = next(before.model.parameters()).device
    is_cut = weights.structure.tokens != state.weights.structure.tokens
    tokens = weights.structure.tokens if is_cut else None
    batches = before.batches

    def in_vocabulary(batch: Batch) -> Batch:
        return renumbered(batch, tokens) if isinstance(batch, Tensor) else renumbered_batch(batch, tokens)

    return Calibration(weights, weights.model().to(device), lambda: map(in_vocabulary, batches()))
