"""Compression of a checkpoint: recipes, pruners, quantizers, packed files. Usable alone on any Hugging Face model.

    from trainlarge.compression import Magnitude, Recipe, Uniform, compress, load_packed, save_packed

    compressed = compress(model, Recipe(prune=Magnitude(sparsity=0.6), quantize=Uniform(bits=4)))
    save_packed("model.packed.safetensors", compressed)
    model = load_packed("model.packed.safetensors")

Names are imported on first use, because most of them need torch. ``__init__.pyi`` lists them with their modules: type
checkers read it, and so does this file.
"""

from __future__ import annotations

from trainlarge.lazy_names import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
