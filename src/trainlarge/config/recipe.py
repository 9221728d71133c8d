"""What compression does to a checkpoint: a recipe prunes, then quantizes; each method is a frozen dataclass.

This file only describes (no torch): names, fields, what is allowed, and the JSON form. The function of a method is
found by its class in ``trainlarge.compression.registry``. A new method is one dataclass with ``@method(...)`` here and
one function with ``@applies(...)`` there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeVar, get_type_hints

from trainlarge.errors import UserError

RECIPE_VERSION = 1
"""Version of the JSON form of a recipe; it grows when a reader of the old form would misread the new one."""

METHODS: dict[str, dict[str, type[Method]]] = {"prune": {}, "quantize": {}}
"""Slot of the recipe -> name of the method -> its dataclass."""

M = TypeVar("M", bound="Method")


def method(slot: Literal["prune", "quantize"], name: str, version: int = 1) -> Callable[[type[M]], type[M]]:
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
    """What every compression method shares. It acts on matrices (parameters with two dimensions or more); vectors
    (biases, norms) are never touched. A tied matrix is one matrix."""

    slot: ClassVar[str] = ""
    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    off: ClassVar[Mapping[str, float]] = {}
    """Numbers with which a configuration leaves the method out, so that an axis can reach from nothing to much."""

    embeddings: bool = field(default=True, kw_only=True)
    """Whether embedding matrices (tokens, positions; a tied output matrix with them) are compressed too."""

    def __post_init__(self) -> None:
        self.require("embeddings", isinstance(self.embeddings, bool), "true or false")

    def require(self, name: str, fine: bool, allowed: str) -> None:
        """Raise the UserError of the configuration key ``<slot>.<name>`` unless the field is ``fine``."""
        if not fine:
            raise UserError(f"{self.slot}.{name}", getattr(self, name), allowed)

    def to_json(self) -> dict[str, Any]:
        """Plain data: name, version and all fields."""
        return {"name": self.name, "version": self.version, **asdict(self)}

    def describe(self) -> str:
        """Short human text, such as ``4 bit row without embeddings``."""
        return self.summary() if self.embeddings else f"{self.summary()} without embeddings"

    def summary(self) -> str:
        """What ``describe`` says of the fields of this method."""
        return self.name


@method("prune", "magnitude")
@dataclass(frozen=True)
class Magnitude(Method):
    """Zero the weights of smallest magnitude: exactly round(sparsity * n) of n, ties by position.

    A weight of a larger sparsity's result is never zero in a smaller one's: results are nested.
    Source: Li et al. 2020 (arXiv 2002.11794), section 4, without their retraining.
    """

    off: ClassVar[Mapping[str, float]] = {"sparsity": 0.0}

    sparsity: float
    """Share of the weights that become zero, in [0, 1); a configuration's 0 is no pruning."""

    scope: Literal["global", "tensor"] = "global"
    """Where weights are ranked: over all matrices together, or within each matrix."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("sparsity", _is_real(self.sparsity) and 0 <= self.sparsity < 1, "a number in [0, 1)")
        self.require("scope", self.scope in ("global", "tensor"), "one of global, tensor")
        object.__setattr__(self, "sparsity", float(self.sparsity))

    def summary(self) -> str:
        """Such as ``prune 60 % global``."""
        return f"prune {self.sparsity * 100:g} % {self.scope}"


@method("quantize", "uniform")
@dataclass(frozen=True)
class Uniform(Method):
    """Round weights to 2^bits equally spaced values, without retraining.

    Asymmetric: step = (max - min) / (2^bits - 1), zero = round(-min / step), code = clamp(round(w / step) + zero,
    0, 2^bits - 1), w' = step * (code - zero), with the range [min, max] widened to hold 0. This is the uniform
    quantization of Li et al. 2020 (arXiv 2002.11794) in its affine form (GPTQ, arXiv 2210.17323), whose whole-number
    zero point keeps a pruned weight exactly 0.
    Symmetric: step = max |w| / (2^(bits-1) - 1), w' = step * round(w / step).
    """

    off: ClassVar[Mapping[str, float]] = {"bits": 32}

    bits: int
    """Bits of a code, 2 to 8; a configuration's 32 is no quantization."""

    granularity: Literal["tensor", "row"] = "row"
    """What shares one step and one zero point: the whole matrix, or one row (first dimension)."""

    symmetric: bool = False
    """Whether the range is symmetric around 0, which leaves one of the 2^bits values unused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = "a whole number from 2 to 8, or 32 in a configuration"
        self.require("bits", _is_integer(self.bits) and 2 <= self.bits <= 8, allowed)
        self.require("granularity", self.granularity in ("tensor", "row"), "one of tensor, row")
        self.require("symmetric", isinstance(self.symmetric, bool), "true or false")
        object.__setattr__(self, "bits", int(self.bits))

    def summary(self) -> str:
        """Such as ``4 bit row``."""
        return f"{self.bits} bit {self.granularity}" + (" symmetric" if self.symmetric else "")


@dataclass(frozen=True)
class Recipe:
    """Prune, then quantize; a part that is None is left out, and both None is the dense checkpoint."""

    prune: Method | None = None
    """How weights are chosen to become zero, such as ``Magnitude(sparsity=0.6)``."""

    quantize: Method | None = None
    """How the remaining weights are rounded, such as ``Uniform(bits=4)``."""

    def __post_init__(self) -> None:
        for slot, part in self.parts().items():
            if part is not None and getattr(part, "slot", None) != slot:
                raise UserError(slot, part, f"nothing or a method of {slot}: {_names(slot)}")

    def parts(self) -> dict[str, Method | None]:
        """Slot -> method, in the order in which they are applied."""
        return {"prune": self.prune, "quantize": self.quantize}

    def describe(self) -> str:
        """Short human text, such as ``prune 60 % global, 4 bit row``, or ``dense``."""
        return ", ".join(part.describe() for part in self.parts().values() if part) or "dense"

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``from_json`` turns into an equal recipe."""
        return {"version": RECIPE_VERSION} | {slot: part and part.to_json() for slot, part in self.parts().items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe that ``to_json`` wrote. Raises UserError for unknown names, fields and versions."""
        unknown = set(data) - {"version", *METHODS}
        if unknown:
            raise UserError("recipe", ", ".join(sorted(unknown)), f"version, {', '.join(METHODS)}")
        _check_version("recipe.version", data.get("version"), RECIPE_VERSION)
        return cls(**{slot: _method_from_json(slot, data.get(slot)) for slot in METHODS})

    @classmethod
    def from_config(cls, prune: Mapping[str, Any] | None, quantize: Mapping[str, Any] | None) -> Recipe:
        """The recipe of the configuration groups ``prune`` and ``quantize``.

        A group is ``{"name": "none"}`` or a method's name and fields; sparsity 0 and 32 bits are none, too. Numbers may
        arrive as text (``"0.6"``), whole numbers as floats (``4.0``).
        Raises UserError, with the configuration key, for unknown names and fields and for values out of range.
        """
        return cls(prune=_method_from_config("prune", prune), quantize=_method_from_config("quantize", quantize))


def _method_from_json(slot: str, data: Mapping[str, Any] | None) -> Method | None:
    if data is None:
        return None
    _check_is_group(slot, data)
    kind = _method_named(slot, data.get("name"))
    _check_version(f"{slot}.version", data.get("version"), kind.version)
    return _build(kind, {key: value for key, value in data.items() if key not in ("name", "version")})


def _method_from_config(slot: str, group: Mapping[str, Any] | None) -> Method | None:
    if group is None:
        return None
    _check_is_group(slot, group)
    given = {key: value for key, value in group.items() if key != "name"}
    if group.get("name") == "none":
        for key in given:
            raise UserError(f"{slot}.{key}", given[key], f"no further key beside {slot}.name=none")
        return None
    kind = _method_named(slot, group.get("name"))
    types = get_type_hints(kind)
    values = {key: _read(value, types.get(key)) for key, value in given.items()}
    _check_fields(kind, values)
    return None if _is_off(kind, values) else _build(kind, values)


def _check_is_group(slot: str, group: Any) -> None:
    if not isinstance(group, Mapping):
        raise UserError(slot, group, f"a name with its fields, such as {{name: {next(iter(METHODS[slot]))}, ...}}")


def _method_named(slot: str, name: Any) -> type[Method]:
    if not isinstance(name, str) or name not in METHODS[slot]:
        raise UserError(f"{slot}.name", name, f"one of none, {_names(slot)}")
    return METHODS[slot][name]


def _check_fields(kind: type[Method], given: dict[str, Any]) -> None:
    allowed = [item.name for item in fields(kind)]
    for key in given:
        if key not in allowed:
            raise UserError(f"{kind.slot}.{key}", given[key], f"a field of {kind.name}: {', '.join(allowed)}")


def _is_off(kind: type[Method], values: dict[str, Any]) -> bool:
    return bool(kind.off) and all(_is_real(values.get(key)) and values[key] == off for key, off in kind.off.items())


def _build(kind: type[Method], given: dict[str, Any]) -> Method:
    _check_fields(kind, given)
    # A field without default that is missing becomes None, so that the method itself says what it needs.
    needed = {item.name: None for item in fields(kind) if item.default is MISSING}
    return kind(**{**needed, **given})


def _check_version(key: str, found: Any, known: int) -> None:
    if not _is_integer(found) or not 1 <= found <= known:
        raise UserError(key, found, f"a version from 1 to {known}")


def _read(value: Any, kind: Any) -> Any:
    """A YAML value as ``kind`` where that loses nothing; otherwise as it came, for the method to refuse."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str) or kind not in _READERS:
        return value
    try:
        return _READERS[kind](value.strip().lower())
    except (ValueError, KeyError):
        return value


_READERS: dict[Any, Callable[[str], Any]] = {
    float: float,
    int: int,
    bool: {"true": True, "false": False}.__getitem__,
}


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _names(slot: str) -> str:
    return ", ".join(METHODS[slot])
