"""The sizes by which a recipe fits a model or not: of a shape, and of a folder by the headers of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path

from trainlarge.config.model_sizes import Matrices, ModelSizes, UnitSizes
from trainlarge.data.tokenizer import FIRST_REGULAR_ID
from trainlarge.models.foreign import LAYOUTS
from trainlarge.models.layout import LayerLayout
from trainlarge.models.model_folder import architecture_of, stored_weights
from trainlarge.models.shape import Shape

_IN_LAYER = re.compile(r"\.\d+\.")
_TABLE = re.compile(r"embed|bias", re.IGNORECASE)
"""In names of tables of vectors within layers, such as those of relative positions."""


@lru_cache(maxsize=1024)
def sizes_of(shape: Shape) -> ModelSizes:
    """Sizes of a model of one of our families, whose tokenizer is ours, or of another one's tensors."""
    if shape.is_library:
        from trainlarge.models.measured import sizes

        return sizes(shape)
    layout = shape.family.layout
    attention, feed_forward = (f"{units.output} of each layer" for units in (layout.heads, layout.neurons))
    return ModelSizes(
        architecture=shape.name,
        matrices=(
            Matrices("the token embedding", shape.width, are_embeddings=True),
            Matrices(attention, shape.width),
            Matrices(feed_forward, shape.ffn_width),
            Matrices("every other matrix", shape.width),
        ),
        layers=shape.depth,
        units={
            "heads": UnitSizes(shape.heads, shape.head_width, attention),
            "neurons": UnitSizes(shape.ffn_width, 1, feed_forward),
        },
        tokens=shape.vocab_size,
        tokens_that_stay=FIRST_REGULAR_ID,
    )


def sizes_of_folder(folder: Path) -> ModelSizes:
    """Sizes of a model in a Hugging Face folder, as far as the names and shapes of its tensors tell them.

    What stands outside of layers may be left out when the model is loaded, and is not among them.

    Raises:
        UserError: a file of weights cannot be read.
    """
    shapes = {name: weight.shape for name, weight in stored_weights(folder).items()}
    architecture, tokens = architecture_of(folder)
    return sizes_of_tensors(architecture, tokens, shapes)


def sizes_of_tensors(architecture: str, tokens: int | None, shapes: Mapping[str, tuple[int, ...]]) -> ModelSizes:
    """Sizes of a model as the names and shapes of its tensors tell them.

    Args:
        architecture: what it is called in errors.
        tokens: entries of its vocabulary; None where they are not known.
        shapes: name of a tensor -> its shape.
    """
    depth = max((_depth(layout, shapes) for layout in LAYOUTS), default=0)
    matrices = (
        Matrices(name, prod(shape[1:]), are_embeddings=bool(_TABLE.search(name)))
        for name, shape in shapes.items()
        if len(shape) >= 2 and _IN_LAYER.search(name)
    )
    return ModelSizes(architecture, tuple(matrices), depth or None, has_known_layers=depth > 0, tokens=tokens)


def _depth(layout: LayerLayout, shapes: Mapping[str, object]) -> int:
    """Layers whose linear layers have the names of a layout."""
    names = [*layout.heads.inputs, layout.heads.output, *layout.neurons.inputs, layout.neurons.output]
    pattern = re.compile(rf"(.*\.\d+\.|\d+\.){re.escape(names[0])}\.weight")
    layers = (match[1] for name in shapes if (match := pattern.fullmatch(name)))
    return sum(all(f"{layer}{name}.weight" in shapes for name in names) for layer in layers)
