"""What every compression method shares: a frozen dataclass with a name in one slot of a recipe, its checks, its JSON.

The methods of a slot are described in the file of its name (``prune.py``, ``quantize.py``). A new method is one
dataclass with ``@method(...)`` there and one function with ``@applies(...)`` in ``trainlarge.compression.methods``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeVar, get_args

from trainlarge.errors import UserError

Slot = Literal["vocabulary", "structure", "factorize", "prune", "quantize", "activations"]

METHODS: dict[str, dict[str, type[Part]]] = {slot: {} for slot in get_args(Slot)}
"""Slot of the recipe, in the natural order -> name of the method -> its dataclass."""

M = TypeVar("M", bound="Part")


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
class Part:
    """What every part of a recipe shares: a method of any slot."""

    slot: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    off: ClassVar[Mapping[str, float]] = {}
    """Numbers with which a configuration leaves the method out, so that an axis can reach from nothing to much."""

    later: ClassVar[Mapping[str, Any]] = {}
    """Fields that came later, with the values that say what was done before. While a field holds that value it is not
    written, so ids and packed files from before stay as they are; such a default never changes."""

    calibrated: ClassVar[bool] = False
    """Whether it looks at the activations of calibration data."""

    def require(self, name: str, fine: bool, allowed: str) -> None:
        """Raise the UserError of the configuration key ``<slot>.<name>`` unless the field is ``fine``."""
        if not fine:
            raise UserError(f"{self.slot}.{name}", getattr(self, name), allowed)

    def without(self, *names: str) -> Hashable:
        """What it is beside the fields ``names``: equal for methods that differ in nothing else.

        What methods share is compared so and never by building another method, whose fields might not fit together.
        """
        kept = [item.name for item in fields(self) if item.name not in names]
        return type(self), tuple((name, getattr(self, name)) for name in kept)

    def to_json(self) -> dict[str, Any]:
        """Plain data: name, version and all fields but those of ``later`` that say what was done before."""
        fields = {
            key: value for key, value in asdict(self).items() if key not in self.later or value != self.later[key]
        }
        return {"name": self.name, "version": self.version, **fields}

    def describe(self) -> str:
        """Short human text, such as ``4 bit row without embeddings``."""
        return self.summary()

    def summary(self) -> str:
        """What ``describe`` says of the fields of this method."""
        return self.name


@dataclass(frozen=True)
class Method(Part):
    """What every method shares that changes weights and not shapes, or each matrix by itself. It acts on matrices
    (parameters with two dimensions or more); vectors (biases, norms) are never touched. A tied matrix is one matrix."""

    embeddings: bool = field(default=True, kw_only=True)
    """Whether embedding matrices (tokens, positions; a tied output matrix with them) are compressed too."""

    def __post_init__(self) -> None:
        self.require("embeddings", isinstance(self.embeddings, bool), "true or false")

    def of_embeddings(self) -> Method:
        """The method as it acts on embedding matrices."""
        return self

    def describe(self) -> str:
        """As for every part, with a word on the embeddings where they are left out."""
        return self.summary() if self.embeddings else f"{self.summary()} without embeddings"


@dataclass(frozen=True)
class Calibrated(Method):
    """What methods share that look at the inputs of linear layers on calibration data.

    The inputs are those of the dense model, the same for all recipes. A matrix that is not the weight of a linear layer
    of its own (embeddings, tied ones too, and convolutions) is treated as if all inputs were alike.
    """

    calibrated: ClassVar[bool] = True

    calibration_rows: int = field(default=128, kw_only=True)
    """Rows of the training data, each of the sequence length, that are looked at; of data given by hand the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            "calibration_rows", is_integer(self.calibration_rows) and self.calibration_rows > 0, "a whole number from 1"
        )


def is_integer(value: Any) -> bool:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether it is a real number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)
