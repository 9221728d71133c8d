"""Compression of a checkpoint: recipes, pruners, quantizers, packed files. Usable alone on any Hugging Face model.

    from trainlarge.compression import Magnitude, Recipe, Uniform, compress, load_packed, save_packed

    compressed = compress(model, Recipe(prune=Magnitude(sparsity=0.6), quantize=Uniform(bits=4)))
    save_packed("model.packed.safetensors", compressed)
    model = load_packed("model.packed.safetensors")

Names are imported on first use, because most of them need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlarge.compression.grid import Compressed, compress, compress_grid
    from trainlarge.compression.layout.tokens import TokenFacts
    from trainlarge.compression.stored.packing import load_packed, load_packed_weights, save_packed
    from trainlarge.compression.stored.sizes import Sizes
    from trainlarge.compression.weights import Weights
    from trainlarge.config.activations import Dynamic, Static
    from trainlarge.config.factorize import FixedRank, LowRank
    from trainlarge.config.prune import Magnitude, Random, SparseGPT, Wanda
    from trainlarge.config.quantize import GPTQ, Binary, KMeans, MinMax, Mixed, Outliers, Ternary, Uniform
    from trainlarge.config.recipe import Recipe
    from trainlarge.config.structure import Heads, LayerList, Layers, Neurons
    from trainlarge.config.vocabulary import Frequent, TokenList

__all__ = [
    "Binary",
    "Compressed",
    "Dynamic",
    "FixedRank",
    "Frequent",
    "GPTQ",
    "Heads",
    "KMeans",
    "LayerList",
    "Layers",
    "LowRank",
    "Magnitude",
    "MinMax",
    "Mixed",
    "Neurons",
    "Outliers",
    "Random",
    "Recipe",
    "Sizes",
    "SparseGPT",
    "Static",
    "Ternary",
    "TokenFacts",
    "TokenList",
    "Uniform",
    "Wanda",
    "Weights",
    "compress",
    "compress_grid",
    "load_packed",
    "load_packed_weights",
    "save_packed",
]

_HOME = {
    "Compressed": "trainlarge.compression.grid",
    "compress": "trainlarge.compression.grid",
    "compress_grid": "trainlarge.compression.grid",
    "load_packed": "trainlarge.compression.stored.packing",
    "load_packed_weights": "trainlarge.compression.stored.packing",
    "save_packed": "trainlarge.compression.stored.packing",
    "Sizes": "trainlarge.compression.stored.sizes",
    "Weights": "trainlarge.compression.weights",
    "Magnitude": "trainlarge.config.prune",
    "Random": "trainlarge.config.prune",
    "SparseGPT": "trainlarge.config.prune",
    "Wanda": "trainlarge.config.prune",
    "Binary": "trainlarge.config.quantize",
    "GPTQ": "trainlarge.config.quantize",
    "KMeans": "trainlarge.config.quantize",
    "MinMax": "trainlarge.config.quantize",
    "Mixed": "trainlarge.config.quantize",
    "Outliers": "trainlarge.config.quantize",
    "Ternary": "trainlarge.config.quantize",
    "Uniform": "trainlarge.config.quantize",
    "Dynamic": "trainlarge.config.activations",
    "Static": "trainlarge.config.activations",
    "Recipe": "trainlarge.config.recipe",
    "FixedRank": "trainlarge.config.factorize",
    "LowRank": "trainlarge.config.factorize",
    "Heads": "trainlarge.config.structure",
    "LayerList": "trainlarge.config.structure",
    "Layers": "trainlarge.config.structure",
    "Neurons": "trainlarge.config.structure",
    "Frequent": "trainlarge.config.vocabulary",
    "TokenList": "trainlarge.config.vocabulary",
    "TokenFacts": "trainlarge.compression.layout.tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
