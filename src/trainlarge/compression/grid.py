"""Compress a model by one recipe, or a checkpoint by many recipes that share their work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from trainlarge.compression.calibration import Batch, Calibration
from trainlarge.compression.forms import Form, Plain
from trainlarge.compression.packing import Packed
from trainlarge.compression.registry import Shared, function_of
from trainlarge.compression.sizes import Sizes
from trainlarge.compression.weights import Weights, load_weights
from trainlarge.config.method import Method
from trainlarge.config.recipe import Recipe

Forms = Mapping[str, Form]


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed model: the float weights to evaluate, what goes to the packed file, and the sizes."""

    recipe: Recipe
    """How it was made."""

    packed: Packed
    """What goes to the packed file; quantized weights are held here as codes of one byte."""

    sizes: Sizes
    """Parameters, ideal bytes and bytes of the packed file."""

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Tensor name -> rounded float tensor, tied ones once; ``load_weights`` puts them into a model.

        Tensors that the recipe left alone are shared with the snapshot: read only.
        """
        return {name: form.dense() for name, form in self.packed.forms.items()}


def compress(
    model: nn.Module, recipe: Recipe, inplace: bool = False, calibration: Iterable[Batch] | None = None
) -> Compressed:
    """Compress a Hugging Face model (or any torch module) by a recipe.

    Args:
        model: left as it is, unless ``inplace``.
        recipe: ``Recipe(prune=Magnitude(sparsity=0.6), quantize=Uniform(bits=4))``.
        inplace: also put the compressed float weights into ``model``.
        calibration: batches of inputs, for methods that look at activations (Wanda, SparseGPT, GPTQ): tensors, or
            mappings of keyword arguments of the model's forward pass.

    Raises UserError where a weight is NaN or infinite (it names the tensor), and where a method needs calibration data
    and there is none.
    """
    weights = Weights.of(model)
    batches = None if calibration is None else list(calibration)
    statistics = None if batches is None else Calibration(weights, model, lambda: batches)
    [(_, compressed)] = compress_grid(weights, [recipe], statistics)
    if inplace:
        load_weights(model, compressed.weights)
    return compressed


def compress_grid(
    weights: Weights, recipes: Sequence[Recipe], calibration: Calibration | None = None
) -> Iterator[tuple[int, Compressed]]:
    """Compress one checkpoint by many recipes: yields (position in ``recipes``, result), each as if computed alone.

    Recipes that prune alike come one after the other, whatever their order in ``recipes``: weights are ranked once for
    all sparsities and pruned once for all quantizers. Beside ``weights`` it holds at most one pruned
    copy (while ranking: one copy of the magnitudes) and the codes of the result at hand.
    """
    shared = Shared(methods=tuple(_methods(recipes)), calibration=calibration)
    original = {name: Plain(tensor) for name, tensor in weights.tensors.items()}
    for prune in dict.fromkeys(recipe.prune for recipe in recipes):
        alike = [(position, recipe) for position, recipe in enumerate(recipes) if recipe.prune == prune]
        yield from _quantized(alike, weights, _applied(prune, weights, original, shared), replace(shared, memory={}))


def _quantized(
    recipes: Sequence[tuple[int, Recipe]], weights: Weights, pruned: Forms, shared: Shared
) -> Iterator[tuple[int, Compressed]]:
    """The results of recipes that prune alike. A function of its own, so that ``pruned`` is freed when it returns."""
    for position, recipe in recipes:
        packed = Packed.of(recipe, weights, _applied(recipe.quantize, weights, pruned, shared))
        yield position, Compressed(recipe, packed, Sizes.of(weights, packed))


def _methods(recipes: Sequence[Recipe]) -> Iterator[Method]:
    return (method for recipe in recipes for method in recipe.parts().values() if method)


def _applied(method: Method | None, weights: Weights, forms: Forms, shared: Shared) -> Forms:
    """The forms after ``method``; those it does not act on are passed through."""
    if method is None:
        return forms
    tensors = {name: forms[name].dense() for name in weights.selected(method.embeddings)}
    return {**forms, **function_of(method)(method, tensors, shared)}
