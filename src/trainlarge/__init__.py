"""How large should I train, for how long, and how far should I compress it?

    from trainlarge import Magnitude, Recipe, Uniform, compress, load_study

    study = load_study("quickstart")                       # pandas frames: cells, curves, compression
    small = compress(model, Recipe(Magnitude(0.6), Uniform(bits=4)))

Names are imported on first use: importing the package alone costs milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainlarge.compression.grid import compress
    from trainlarge.compression.stored.packing import load_packed, save_packed
    from trainlarge.config.prune import Magnitude
    from trainlarge.config.quantize import Uniform
    from trainlarge.config.recipe import Recipe
    from trainlarge.errors import UserError
    from trainlarge.results.frames import StudyFrames, load_study

__all__ = [
    "Magnitude",
    "Recipe",
    "StudyFrames",
    "Uniform",
    "UserError",
    "compress",
    "load_packed",
    "load_study",
    "save_packed",
]

_HOME = {
    "Magnitude": "trainlarge.config.prune",
    "Recipe": "trainlarge.config.recipe",
    "StudyFrames": "trainlarge.results.frames",
    "Uniform": "trainlarge.config.quantize",
    "UserError": "trainlarge.errors",
    "compress": "trainlarge.compression.grid",
    "load_packed": "trainlarge.compression.stored.packing",
    "load_study": "trainlarge.results.frames",
    "save_packed": "trainlarge.compression.stored.packing",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # Imported here: it takes three times as long as all the rest of this file.
        return import_module("importlib.metadata").version("trainlarge")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
