"""Which function carries out which method of a recipe, and what the recipes of one checkpoint share while they run.

A method registers once, by what it does: ``@applies`` (or ``@applies_to_each``), ``@reshapes``, ``@rounds`` or
``@trains``. One that also acts while a model trains (``Method.while_training``) says how with ``@while_training``;
one that does nothing else, with ``@only_while_training`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TypeVar, cast

from torch import Tensor

from trainlarge.compression.calibration import Calibration
from trainlarge.compression.input_ranges import Ranges
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.training import Learned, ParentRun, Trainer, TrainingPlan
from trainlarge.compression.weights import Weights
from trainlarge.config.method import MatrixMethod, Method
from trainlarge.errors import UserError
from trainlarge.training.modifier import Modifier

T = TypeVar("T")
M = TypeVar("M", bound=Method)
X = TypeVar("X", bound=MatrixMethod)
S = TypeVar("S", bound=StoredTensor)

StoredTensors = Mapping[str, StoredTensor]
"""Tensor name -> stored tensor."""
Apply = Callable[[X, Mapping[str, Tensor], "Shared"], dict[str, StoredTensor]]
"""The method, the matrices it acts on by name (never to be changed in place), and what is shared -> the same names with
the tensors as they will be stored."""
Reshape = Callable[[M, Weights, "Shared"], Weights]
"""The method, the weights (never to be changed in place) and what is shared -> the weights that are left. A tensor that
does not change is the same object."""
Round = Callable[[M, Weights, StoredTensors, "Shared"], Ranges]
"""The method, the weights, their stored tensors and what is shared -> the layers whose inputs are quantized, with their
fixed range; None where each token has its own."""
Train = Callable[[M, Weights, ParentRun | None], TrainingPlan]
"""The method, the weights at the start and the training that made the checkpoint -> how to train."""

WhileTraining = Callable[[M, "TrainingStart"], Modifier]
"""The method and the training that begins -> what it does to the model while that trains."""


@dataclass(frozen=True)
class Applies:
    """Changes the values of matrices."""

    function: Apply[MatrixMethod]


@dataclass(frozen=True)
class Reshapes:
    """Changes shapes."""

    function: Reshape[Method]


@dataclass(frozen=True)
class Rounds:
    """Quantizes the inputs of layers, and changes no weight."""

    function: Round[Method]


@dataclass(frozen=True)
class Trains:
    """Trains what is left of the checkpoint."""

    function: Train[Method]


@dataclass(frozen=True)
class Waits:
    """Does nothing before the training that comes after it, and its work in that."""


Action = Applies | Reshapes | Rounds | Trains | Waits
"""How a method is carried out."""

_ACTIONS: dict[type[Method], Action] = {}
_HOMES = ("trainlarge.compression.methods", "trainlarge.compression.structure.methods")
"""Folders that register the methods when they are imported."""


_MODIFIERS: dict[type[Method], WhileTraining[Method]] = {}


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

    learned: Learned = Learned()
    """What the training before has fixed for quantization."""

    memory: dict[Hashable, object] = field(default_factory=dict)
    """What ``once`` has computed."""

    def calibrated(self, method: Method) -> Calibration:
        """The calibration of a method that needs it. Raises UserError where there is none."""
        if self.calibration is None:
            raise UserError(
                "calibration", None, f"batches of inputs, since {method.slot}.name={method.name} looks at them"
            )
        return self.calibration

    def token_facts(self, method: Method) -> TokenFacts:
        """The facts of a text for a method that needs them. Raises UserError where there are none."""
        if self.tokens is None:
            raise UserError(
                "tokens", None, f"the TokenFacts of a text, since {method.slot}.name={method.name} needs them"
            )
        return self.tokens

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
        return cast(T, self.memory[key])


@dataclass(frozen=True, eq=False)
class TrainingStart:
    """A training that begins, for the methods that take part in it."""

    method: Method
    """The step that trains."""
    weights: Weights
    """Float weights at the start."""
    shared: Shared
    """What recipes share, with the calibration of these weights."""
    others: tuple[Method, ...]
    """All methods that take part, in their order."""
    first_step: int
    """Number of the first step, as modifiers count them."""
    steps: int
    """Optimizer steps."""
    rate: Callable[[int], float]
    """Learning rate of a step, which counts from 0, as a share of the peak."""


def applies(*kinds: type[X]) -> Callable[[Apply[X]], Apply[X]]:
    """Decorator: the function carries out methods of these classes, which change the values of matrices."""
    return _registering(kinds, lambda function: Applies(cast("Apply[MatrixMethod]", function)))


def applies_to_each(*kinds: type[X]) -> Callable[[Callable[[Tensor, X], S]], Callable[[Tensor, X], S]]:
    """Decorator: the function carries out methods of these classes matrix by matrix, ``(matrix, method) -> stored``."""

    def of_all(function: Callable[[Tensor, X], S]) -> Applies:
        of_one = cast("Callable[[Tensor, MatrixMethod], StoredTensor]", function)
        return Applies(lambda method, tensors, _: {name: of_one(tensor, method) for name, tensor in tensors.items()})

    return _registering(kinds, of_all)


def reshapes(*kinds: type[M]) -> Callable[[Reshape[M]], Reshape[M]]:
    """Decorator: the function carries out methods of these classes, which change shapes."""
    return _registering(kinds, lambda function: Reshapes(cast("Reshape[Method]", function)))


def rounds(*kinds: type[M]) -> Callable[[Round[M]], Round[M]]:
    """Decorator: the function carries out methods of these classes, which quantize the inputs of layers."""
    return _registering(kinds, lambda function: Rounds(cast("Round[Method]", function)))


def trains(*kinds: type[M]) -> Callable[[Train[M]], Train[M]]:
    """Decorator: the function says how methods of these classes train."""
    return _registering(kinds, lambda function: Trains(cast("Train[Method]", function)))


def while_training(*kinds: type[M]) -> Callable[[WhileTraining[M]], WhileTraining[M]]:
    """Decorator: the function says what methods of these classes do to a model while it trains."""

    def register(function: WhileTraining[M]) -> WhileTraining[M]:
        _MODIFIERS.update(dict.fromkeys(kinds, cast("WhileTraining[Method]", function)))
        return function

    return register


def only_while_training(*kinds: type[X]) -> Callable[[WhileTraining[X]], WhileTraining[X]]:
    """Decorator: as ``while_training``, for methods that do nothing else."""

    def register(function: WhileTraining[X]) -> WhileTraining[X]:
        _ACTIONS.update(dict.fromkeys(kinds, Waits()))
        return while_training(*kinds)(function)

    return register


def modifier_of(method: Method, start: TrainingStart) -> Modifier:
    """What a method does to a model while it trains. Raises LookupError for one that does nothing then."""
    _import_homes()
    return _MODIFIERS[type(method)](method, start)


def action_of(method: Method) -> Action:
    """How a method is carried out. Raises LookupError for a method that is only described."""
    _import_homes()
    if type(method) not in _ACTIONS:
        raise LookupError(f"no function is registered for {type(method).__name__}: see trainlarge.compression.registry")
    return _ACTIONS[type(method)]


def _import_homes() -> None:
    for home in _HOMES:
        import_module(home)


def _registering(kinds: tuple[type[Method], ...], action: Callable[[T], Action]) -> Callable[[T], T]:
    def register(function: T) -> T:
        _ACTIONS.update(dict.fromkeys(kinds, action(function)))
        return function

    return register
