"""Compression of a checkpoint: recipes, pruners, quantizers, packed files. Usable alone on any Hugging Face model.

    from trainlarge.compression import Magnitude, Recipe, Uniform, compress, load_packed, save_packed

    compressed = compress(model, Recipe(prune=Magnitude(sparsity=0.6), quantize=Uniform(bits=4)))
    save_packed("model.packed.safetensors", compressed)
    model = load_packed("model.packed.safetensors")

Names are imported on first use, because most of them need torch. ``__init__.pyi`` lists them with their modules: type
checkers read it, and so does this file.
"""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path


def _modules() -> dict[str, str]:
    """Public name -> the module that defines it, as the stub file says."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_MODULES = _modules()
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
