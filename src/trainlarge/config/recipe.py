"""What compression does to a checkpoint: a recipe prunes, then quantizes; each part is a method, a frozen dataclass.

This file only describes (no torch): the slots of a recipe, what is allowed, its JSON form and how a configuration is
read. The methods of a slot are in the file of its name, what they share in ``method.py``; a method's function is
found by its class in ``trainlarge.compression.registry``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from importlib import import_module
from typing import Any, get_args, get_type_hints

from trainlarge.config.method import METHODS, Method, is_integer, is_real
from trainlarge.errors import UserError

for _slot in METHODS:
    import_module(f"trainlarge.config.{_slot}")

RECIPE_VERSION = 1
"""Version of the JSON form of a recipe; it grows when a reader of the old form would misread the new one."""


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
    return bool(kind.off) and all(is_real(values.get(key)) and values[key] == off for key, off in kind.off.items())


def _build(kind: type[Method], given: dict[str, Any]) -> Method:
    _check_fields(kind, given)
    # A field without default that is missing becomes None, so that the method itself says what it needs.
    needed = {item.name: None for item in fields(kind) if item.default is MISSING}
    return kind(**{**needed, **given})


def _check_version(key: str, found: Any, known: int) -> None:
    if not is_integer(found) or not 1 <= found <= known:
        raise UserError(key, found, f"a version from 1 to {known}")


def _read(value: Any, kind: Any) -> Any:
    """A YAML value as ``kind`` where that loses nothing; otherwise as it came, for the method to refuse."""
    kind = next((part for part in get_args(kind) if part in _READERS), kind)  # int | None is read as int
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


def _names(slot: str) -> str:
    return ", ".join(METHODS[slot])
