"""Which function carries out which method that changes shapes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from trainlarge.compression.registry import Shared
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Part

Reshape = Callable[[Any, Weights, Shared], Weights]
"""Signature of a function: its dataclass, the weights (never to be changed in place) and what is shared -> the weights
that are left. A tensor that does not change is the same object."""

_FUNCTIONS: dict[type[Part], Reshape] = {}


def reshapes(*kinds: type[Part]) -> Callable[[Reshape], Reshape]:
    """Decorator: the function that carries out methods of these classes."""

    def register(function: Reshape) -> Reshape:
        _FUNCTIONS.update(dict.fromkeys(kinds, function))
        return function

    return register


def reshape_of(part: Part) -> Reshape | None:
    """The function registered for a method; None for one that changes no shapes."""
    import_module("trainlarge.compression.structure.methods")
    return _FUNCTIONS.get(type(part))
