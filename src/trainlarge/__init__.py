"""How large should I train, for how long, and how far should I compress it?

    from trainlarge import Magnitude, Recipe, Uniform, compress, load_study

    study = load_study("quickstart")                       # pandas frames: cells, curves, compression
    small = compress(model, Recipe(Magnitude(0.6), Uniform(bits=4)))

Names are imported on first use: importing the package alone costs milliseconds. ``__init__.pyi``
lists them with their modules: type checkers read it, and so does this file.
"""

from __future__ import annotations

from importlib import import_module

from trainlarge.lazy_names import attach_stub

_public, __dir__, __all__ = attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        # Imported here: it takes three times as long as all the rest of this file.
        return import_module("importlib.metadata").version("trainlarge")
    return _public(name)
