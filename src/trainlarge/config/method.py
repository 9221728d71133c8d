"""What every compression method shares: a frozen dataclass with a name in one slot of a recipe, its checks, its JSON.

The methods of a slot are described in the file of its name (``prune.py``, ``quantize.py``). A new method is one
dataclass with ``@method(...)`` there and one function with ``@applies(...)`` in ``trainlarge.compression.methods``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import ClassVar, Literal, TypeGuard, TypeVar, get_args

from trainlarge.config.group import Plain, as_plain, choices, one_of
from trainlarge.config.identity import field_names, without_added
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.reads import Unread, unread
from trainlarge.errors import UserError

Slot = Literal["vocabulary", "structure", "factorize", "prune", "recover", "quantize", "activations"]

METHODS: dict[str, dict[str, type[Method]]] = {slot: {} for slot in get_args(Slot)}
"""Slot of the recipe, in the natural order -> name of the method -> its dataclass."""

M = TypeVar("M", bound="Method")


def method(slot: Slot, name: str, version: int = 1) -> Callable[[type[M]], type[M]]:
    """Class decorator: makes a dataclass known as the method ``name`` of the recipe's ``slot``.

    ``version`` is the version of its fields in JSON.
    """

    def register(cls: type[M]) -> type[M]:
        cls.slot, cls.name, cls.version = slot, name, version
        METHODS[slot][name] = cls
        return cls

    return register


@dataclass(frozen=True)
class Method:
    """What a recipe does in one slot."""

    slot: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    disabled_by: ClassVar[Mapping[str, float]] = {}
    """Field values that mean "method disabled" in a configuration, so that a sweep can include the uncompressed case:
    sparsity 0, 32 bits."""

    enabled_by: ClassVar[Mapping[str, float]] = {}
    """Values in the place of those of ``disabled_by`` with which the other keys of a disabled method are checked, where
    these would be refused themselves."""

    calibrated: ClassVar[bool] = False
    """Whether it looks at the activations of calibration data."""

    while_training: ClassVar[bool] = False
    """Whether it acts while a model trains: it has a function with ``@while_training``. A method of ``prune`` acts in
    the training that comes after it, one of ``quantize`` or ``activations`` in the one before that is aware of it."""

    def ahead(self, later: Sequence[Method]) -> tuple[Method, ...]:
        """Those of the later steps of a recipe that take part in this one, and so decide its result."""
        return ()

    needs_training: ClassVar[bool] = False
    """Whether it does its work while the model trains, so that ``recover`` must be the next step of the recipe."""

    def check_training(self, recover: Method) -> None:
        """Raise UserError for a training that a method with ``needs_training`` cannot do its work in."""

    def unfolded(self, following: Method | None) -> tuple[Method, ...]:
        """The steps of a recipe that this method stands for.

        Args:
            following: the next method of the recipe, which comes after all of these steps.
        """
        return (self,)

    def fitted(self, model: ModelSizes) -> ModelSizes:
        """The sizes of what this method leaves of a model, as far as they are known without its weights.

        Raises:
            UserError: the method does not fit a model of these sizes.
        """
        return model

    def require(self, name: str, is_valid: bool, allowed: str) -> None:
        """Raise the UserError of the configuration key ``<slot>.<name>`` unless the value of the field is valid."""
        if not is_valid:
            raise UserError(f"{self.slot}.{name}", getattr(self, name), allowed)

    def require_whole(self, name: str, least: int, most: int | None = None, further: str = "") -> None:
        """Raise a UserError unless the field is a whole number from ``least`` on (up to ``most``).

        Args:
            further: what else is allowed, for the error.
        """
        value = getattr(self, name)
        is_valid = is_integer(value) and least <= value and (most is None or value <= most)
        text = f"a whole number from {least}" + ("" if most is None else f" to {most}")
        self.require(name, is_valid, text + further)

    def require_one_of(self, name: str, *values: str) -> None:
        """Raise a UserError unless the field has one of these values; where none are given, of its ``Literal`` type."""
        allowed = values or choices(type(self))[name]
        self.require(name, getattr(self, name) in allowed, one_of(allowed))

    @property
    def unread(self) -> tuple[Unread, ...]:
        """Keys that are set and that nobody reads with the values of the others."""
        kind = type(self)
        return tuple(unread(kind, {name: getattr(self, name) for name in field_names(kind)}, self.slot))

    def without(self, *names: str) -> Hashable:
        """Its class and all fields except ``names``: equal for methods that differ in nothing else.

        Methods are compared in this way and never by building another one, whose fields might not fit together.
        """
        others = [item.name for item in fields(self) if item.name not in names]
        return type(self), tuple((name, getattr(self, name)) for name in others)

    def to_json(self) -> dict[str, Plain]:
        """Plain data: name, version and all fields, except those with the value from before they were added."""
        written = {name: as_plain(value) for name, value in without_added(self).items()}
        return {"name": self.name, "version": self.version, **written}

    def describe(self) -> str:
        """Short human text, such as ``4 bit row without embeddings``."""
        return self.summary()

    def summary(self) -> str:
        """What ``describe`` says of the fields of this method."""
        return self.name


@dataclass(frozen=True)
class MatrixMethod(Method):
    """A method that acts on single matrices: it changes weights, or replaces a matrix by factors.

    Matrices are the parameters with two dimensions or more; vectors (biases, norms) are never changed. A tied matrix is
    one matrix.
    """

    embeddings: bool = field(default=True, kw_only=True)
    """Whether embedding matrices (tokens, positions; a tied output matrix with them) are compressed too."""

    def __post_init__(self) -> None:
        self.require("embeddings", isinstance(self.embeddings, bool), "true or false")

    def of_embeddings(self) -> MatrixMethod:
        """The method as it acts on embedding matrices."""
        return self

    @classmethod
    def on_embeddings(cls, part: Method | None) -> MatrixMethod | None:
        """An entry of a recipe as it acts on embedding matrices; None where it leaves them alone."""
        return part.of_embeddings() if isinstance(part, cls) and part.embeddings else None

    def describe(self) -> str:
        """As for every method, with a word on the embeddings where they are left out."""
        return self.summary() if self.embeddings else f"{self.summary()} without embeddings"


@dataclass(frozen=True)
class Calibrated(MatrixMethod):
    """What the methods share that use the inputs of linear layers on calibration data.

    The inputs are those of the dense model, the same for all recipes. A matrix that is not the weight of a linear layer
    of its own (embeddings, tied ones too, and convolutions) is treated as if all inputs were alike.
    """

    calibrated: ClassVar[bool] = True

    calibration_rows: int = field(default=128, kw_only=True)
    """How many rows of the training data, each of the sequence length, are used; of data passed by hand the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("calibration_rows", 1)


BITS_IN_CONFIGURATION = ", or 32 in a configuration"
"""What is allowed for the key ``bits`` in addition to its range: 32 disables the method."""


def normalize(instance: object, **values: object) -> None:
    """Set fields of a frozen dataclass to a standard form, within its ``__post_init__``: 4.0 bits are 4 bits."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: object) -> TypeGuard[float]:
    """Whether it is a real number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)
