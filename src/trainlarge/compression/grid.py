"""Compress a model by one recipe, or a checkpoint by many recipes that share their work."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from torch import nn

from trainlarge.compression.calibration import Batch, Calibration
from trainlarge.compression.compressed import Compressed
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.compression.model_tensors import load_reshaped
from trainlarge.compression.registry import Shared
from trainlarge.compression.steps import RecipeState, carried_out
from trainlarge.compression.stored.packing import Packed
from trainlarge.compression.stored.sizes import Sizes
from trainlarge.compression.training import Trainer
from trainlarge.compression.training_data import DataTrainer, TrainingData
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Method
from trainlarge.config.recipe import Recipe
from trainlarge.errors import UserError
from trainlarge.models.fake_quantize import fake_quantize_inputs

T = TypeVar("T")


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

    Warns where the recipe leaves nearly nothing of some matrices, and far more of the others (``left_by_matrix``).
    Raises UserError where a weight is NaN or infinite (it names the tensor), and where a method needs calibration data
    and there is none.
    """
    weights = Weights.of(model)
    batches = None if calibration is None else list(calibration)
    statistics = None if batches is None else Calibration(weights, model, lambda: batches)
    trainer = None if training is None else DataTrainer(training, weights)
    [(_, compressed)] = compress_grid(weights, [recipe], statistics, tokens, trainer=trainer)
    if compressed.warning:
        warnings.warn(compressed.warning, stacklevel=2)
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

    Recipes with the same first steps come one after the other, in any order of ``recipes``: each first step is carried
    out once for all of them, and weights are ranked once for all sparsities.

    Memory, in addition to ``weights``: for the current recipe one bit per weight where it prunes, one byte per weight
    where it quantizes. Methods that correct weights (SparseGPT, GPTQ) hold H and its factor [in, in] of every linear
    layer in float32, of one number of rows and one damping at a time: 1 GB at width 768 and depth 12, by formula; half
    of it for ``Mixed``. SparseGPT also holds a pruned copy.
    """
    shared = Shared(calibration=calibration, tokens=tokens, trainer=trainer)
    branches = [(position, recipe, recipe.steps) for position, recipe in enumerate(recipes)]
    scopes: dict[bool, Callable[[], Weights]] = {True: lambda: weights, False: weights.with_whole_head}
    for compress_head, scope_of in scopes.items():
        alike = [branch for branch in branches if branch[1].compress_head is compress_head]
        scope = _unless_refused(scope_of, alike, refused) if alike else None
        if scope is not None:
            yield from _branches(alike, RecipeState(scope, scope.as_stored(), shared), refused)


_Branch = tuple[int, Recipe, tuple[Method, ...]]
"""Position in the grid, the recipe, and its steps that are left to do."""


def _branches(
    branches: Sequence[_Branch], state: RecipeState, refused: Callable[[int, UserError], None] | None
) -> Iterator[tuple[int, Compressed]]:
    """The results of recipes that have come to the same state. A state is freed when its last recipe is done."""
    for position, recipe, steps in branches:
        if not steps:
            packed = Packed.of(recipe, state.weights, state.stored, state.ranges)
            sizes = Sizes.of(state.weights, packed)
            yield position, Compressed(recipe, packed, sizes, state.weights, state.training)
    unfinished = [branch for branch in branches if branch[2]]
    # Only what is asked of this very state: what another one remembers is about other weights.
    shared = replace(state.shared, methods=tuple(steps[0] for _, _, steps in unfinished), memory={})
    works = dict.fromkeys((steps[0], steps[0].ahead(steps[1:])) for _, _, steps in unfinished)
    for step, ahead in sorted(works, key=lambda work: _statistics(work[0])):
        alike = [
            (position, recipe, steps[1:])
            for position, recipe, steps in unfinished
            if (steps[0], steps[0].ahead(steps[1:])) == (step, ahead)
        ]
        after = _unless_refused(partial(carried_out, step, replace(state, shared=shared), ahead), alike, refused)
        if after is not None:
            yield from _branches(alike, after, refused)
            del after


def _unless_refused(
    make: Callable[[], T], branches: Sequence[_Branch], refused: Callable[[int, UserError], None] | None
) -> T | None:
    """What is made; None where it is refused, of which each of the branches is told."""
    try:
        return make()
    except UserError as error:
        if refused is None:
            raise
        for position, _, _ in branches:
            refused(position, error)
        return None


def _statistics(step: Method) -> tuple[int, float]:
    """Equal for steps that need the same statistics of the calibration, which keeps the large ones of one kind only."""
    return getattr(step, "calibration_rows", 0), getattr(step, "damping", 0.0)
