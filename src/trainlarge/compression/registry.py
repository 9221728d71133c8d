"""Which function applies which method of a recipe, and what the recipes of one checkpoint share while they run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from torch import Tensor

from trainlarge.compression.calibration import Calibration
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.compression.stored.forms import Form
from trainlarge.config.method import Method, Part
from trainlarge.errors import UserError

T = TypeVar("T")

Apply = Callable[[Any, Mapping[str, Tensor], "Shared"], dict[str, Form]]
"""Signature of a method's function: its dataclass, the matrices it acts on by name (never to be changed in place), and
what is shared -> the same names in the form in which they will be stored."""

_FUNCTIONS: dict[type[Method], Apply] = {}


@dataclass
class Shared:
    """What all recipes of one checkpoint have in common, so that work is done once for a whole grid.

    Sharing never changes a result: a function computes from here only what it would compute alone.
    """

    methods: tuple[Part, ...] = ()
    """Every method that recipes of the grid carry out next: what a function can prepare for in one go (all
    sparsities in one sort)."""

    calibration: Calibration | None = None
    """Statistics of the inputs of linear layers; None where nobody gave data. Computed when first asked for."""

    tokens: TokenFacts | None = None
    """How often tokens occur, and which are special; None where nobody said."""

    memory: dict[Hashable, Any] = field(default_factory=dict)
    """What ``once`` has computed."""

    def calibrated(self, method: Part) -> Calibration:
        """The calibration of a method that needs it. Raises UserError where there is none."""
        if self.calibration is None:
            raise UserError(
                "calibration", None, f"batches of inputs, since {method.slot}.name={method.name} looks at them"
            )
        return self.calibration

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """``compute()``, remembered under ``key``. Only for small things that depend on the weights before this
        method and on ``methods`` alone: they are held as long as these weights."""
        if key not in self.memory:
            self.memory[key] = compute()
        return self.memory[key]


def applies(kind: type[Method]) -> Callable[[Apply], Apply]:
    """Decorator: the function that carries out methods of class ``kind``."""

    def register(function: Apply) -> Apply:
        _FUNCTIONS[kind] = function
        return function

    return register


def function_of(method: Method) -> Apply:
    """The function registered for a method. Raises LookupError for a method that is only described."""
    import_module("trainlarge.compression.methods")
    if type(method) not in _FUNCTIONS:
        raise LookupError(f"no function with @applies({type(method).__name__})")
    return _FUNCTIONS[type(method)]
