"""Which function carries out which method of a recipe, and what the recipes of one checkpoint share while they run.

A method registers once, by what it does: ``@applies``, ``@reshapes``, ``@rounds`` or ``@trains``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from torch import Tensor

from trainlarge.compression.calibration import Calibration
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.training import ParentRun, Trainer, TrainingPlan
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Method
from trainlarge.errors import UserError

T = TypeVar("T")

StoredTensors = Mapping[str, StoredTensor]
"""Tensor name -> stored tensor."""
Apply = Callable[[Any, Mapping[str, Tensor], "Shared"], dict[str, StoredTensor]]
"""Its dataclass, the matrices it acts on by name (never to be changed in place), and what is shared -> the same names
with the tensors as they will be stored."""
Reshape = Callable[[Any, Weights, "Shared"], Weights]
"""Its dataclass, the weights (never to be changed in place) and what is shared -> the weights that are left. A tensor
that does not change is the same object."""
Round = Callable[[Any, Weights, StoredTensors, "Shared"], Mapping[str, tuple[float, float] | None]]
"""Its dataclass, the weights, their stored tensors and what is shared -> the layers whose inputs are quantized, with
their fixed range; None where each token has its own."""

Train = Callable[[Any, Weights, ParentRun | None], TrainingPlan]
"""Its dataclass, the weights at the start and the training that made the checkpoint -> how to train."""


@dataclass(frozen=True)
class Applies:
    """Changes the values of matrices."""

    function: Apply


@dataclass(frozen=True)
class Reshapes:
    """Changes shapes."""

    function: Reshape


@dataclass(frozen=True)
class Rounds:
    """Quantizes the inputs of layers, and changes no weight."""

    function: Round


@dataclass(frozen=True)
class Trains:
    """Trains what is left of the checkpoint."""

    function: Train


Action = Applies | Reshapes | Rounds | Trains
"""How a method is carried out."""

_ACTIONS: dict[type[Method], Action] = {}
_HOMES = tuple(f"trainlarge.compression.{name}" for name in ("methods", "structure.methods", "activation_quantization"))
"""Modules that register the methods when they are imported."""


@dataclass
class Shared:
    """What all recipes of one checkpoint have in common, so that work is done once for a whole grid.

    Sharing never changes a result: a function computes from here only what it would compute alone.
    """

    methods: tuple[Method, ...] = ()
    """Every method that recipes of the grid carry out next: what a function can prepare for in one go (all
    sparsities in one sort)."""

    calibration: Calibration | None = None
    """Statistics of the inputs of linear layers; None where no data were given. Computed when first asked for."""

    tokens: TokenFacts | None = None
    """How often tokens occur, and which are special; None where this is not given."""

    trainer: Trainer | None = None
    """Trains for methods that need it; None where there is no training data."""

    memory: dict[Hashable, Any] = field(default_factory=dict)
    """What ``once`` has computed."""

    def calibrated(self, method: Method) -> Calibration:
        """The calibration of a method that needs it. Raises UserError where there is none."""
        if self.calibration is None:
            raise UserError(
                "calibration", None, f"batches of inputs, since {method.slot}.name={method.name} looks at them"
            )
        return self.calibration

    def trainer_of(self, method: Method) -> Trainer:
        """The trainer of a method that needs it. Raises UserError where there is none."""
        if self.trainer is None:
            allowed = f"data to train on (compress(..., training=TrainingData(...))), since {method.name} trains"
            raise UserError("training", None, allowed)
        return self.trainer

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """``compute()``, remembered under ``key``.

        Only for small things that depend on the weights before this method and on ``methods`` alone: they are held as
        long as these weights.
        """
        if key not in self.memory:
            self.memory[key] = compute()
        return self.memory[key]


def applies(*kinds: type[Method]) -> Callable[[Apply], Apply]:
    """Decorator: the function carries out methods of these classes, which change the values of matrices."""
    return _registering(Applies, kinds)


def reshapes(*kinds: type[Method]) -> Callable[[Reshape], Reshape]:
    """Decorator: the function carries out methods of these classes, which change shapes."""
    return _registering(Reshapes, kinds)


def rounds(*kinds: type[Method]) -> Callable[[Round], Round]:
    """Decorator: the function carries out methods of these classes, which quantize the inputs of layers."""
    return _registering(Rounds, kinds)


def trains(*kinds: type[Method]) -> Callable[[Train], Train]:
    """Decorator: the function says how methods of these classes train."""
    return _registering(Trains, kinds)


def action_of(method: Method) -> Action:
    """How a method is carried out. Raises LookupError for a method that is only described."""
    for home in _HOMES:
        import_module(home)
    if type(method) not in _ACTIONS:
        raise LookupError(f"no function is registered for {type(method).__name__}: see trainlarge.compression.registry")
    return _ACTIONS[type(method)]


def _registering(action: Callable[[T], Action], kinds: tuple[type[Method], ...]) -> Callable[[T], T]:
    def register(function: T) -> T:
        _ACTIONS.update(dict.fromkeys(kinds, action(function)))
        return function

    return register
