"""Dataclasses that are read from plain JSON data, with names and types checked, and written as such data.

For the small files of a study and the parts of a record. A key that is missing has the field's default. A key that the
dataclass does not have is left out: a newer version may have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, ForwardRef, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from trainlarge.config.group import Plain
from trainlarge.config.identity import once_per_class

T = TypeVar("T")
_Reader = Callable[[object, str], object]
_SCALARS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}


class JsonTypeError(ValueError):
    """JSON data that are not what the dataclass describes. The text names the key, its value and what is allowed."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        shown = repr(value)
        super().__init__(f"{key}={shown if len(shown) <= 60 else shown[:57] + '...'} is not valid: must be {allowed}")

    def __reduce__(self) -> tuple[type[JsonTypeError], tuple[str, object, str]]:
        return type(self), (self.key, self.value, self.allowed)


def read(kind: type[T], data: object, key: str = "") -> T:
    """The dataclass ``kind`` with the values of ``data``.

    Field types may be text, numbers, true or false, null, ``Literal``, ``StrEnum``, other dataclasses, ``Plain``,
    ``object``, and tuples, lists, mappings and unions of these.

    Args:
        kind: a dataclass.
        data: what JSON gives: a mapping from keys to values.
        key: where ``data`` stands in its file, for errors; empty for the whole file.

    Raises:
        JsonTypeError: a ValueError, for a value of another type, or a key that is missing and has no default.
    """
    return cast(T, _dataclass_reader(kind)(data, key))


def plain(instance: object) -> dict[str, Plain]:
    """A dataclass instance as plain data, one key per field, which ``read`` turns back into an equal instance."""
    return {item.name: _plain(getattr(instance, item.name)) for item in fields(cast(Any, instance))}


def _plain(value: object) -> Plain:
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return cast(Plain, value)


@once_per_class
def _dataclass_reader(kind: type) -> _Reader:
    hints = get_type_hints(kind)
    items = [item for item in fields(kind) if item.init]
    readers = [(item.name, _taken_as_they_are(hints[item.name]), _reader(hints[item.name])) for item in items]
    needed = [item.name for item in items if item.default is MISSING and item.default_factory is MISSING]

    def read_dataclass(data: object, key: str) -> object:
        if not isinstance(data, Mapping):
            raise JsonTypeError(key or "content", data, "a mapping from keys to values")
        prefix = f"{key}." if key else ""
        for name in needed:
            if name not in data:
                raise JsonTypeError(prefix + name, None, "there")
        values = {}
        for name, scalars, reader in readers:
            if name in data:
                value = data[name]
                values[name] = value if type(value) in scalars else reader(value, prefix + name)
        return kind(**values)

    return read_dataclass


def _taken_as_they_are(hint: Any) -> frozenset[type]:
    """The scalar types of a hint: most values are of these, and asking takes less time than calling a reader."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return frozenset(part for part in parts if part in _SCALARS)


def _reader(hint: Any) -> _Reader:
    origin, parts = get_origin(hint), get_args(hint)
    if hint in (Any, object) or isinstance(hint, ForwardRef) or _is_plain(hint):
        return lambda value, _key: value
    if is_dataclass(hint):
        return _dataclass_reader(cast(type, hint))
    if origin is Literal:
        return _one_of(parts)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member_of(hint)
    if origin in (Union, UnionType):
        return _union(parts)
    if origin is tuple and parts[-1] is not Ellipsis:
        return _fixed_tuple([_reader(part) for part in parts])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_reader(parts[1]))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _sequence(tuple if origin is tuple else list, _reader(parts[0]))
    return _scalar(hint)


def _is_plain(hint: Any) -> bool:
    """Whether a type is ``Plain``: a union that refers to itself."""
    return get_origin(hint) in (Union, UnionType) and any(
        isinstance(inner, ForwardRef) for part in get_args(hint) for inner in get_args(part)
    )


def _scalar(kind: type) -> _Reader:
    def read_scalar(value: object, key: str) -> object:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise JsonTypeError(key, value, _SCALARS[kind])

    return read_scalar


def _one_of(allowed: tuple[object, ...]) -> _Reader:
    def read_choice(value: object, key: str) -> object:
        if not isinstance(value, (str, int, float, bool, NoneType)) or value not in allowed:
            raise JsonTypeError(key, value, f"one of {', '.join(map(str, allowed))}")
        return value

    return read_choice


def _member_of(kind: type[StrEnum]) -> _Reader:
    members = {member.value: member for member in kind}

    def read_member(value: object, key: str) -> object:
        if not isinstance(value, str) or value not in members:
            raise JsonTypeError(key, value, f"one of {', '.join(members)}")
        return members[value]

    return read_member


def _union(parts: tuple[Any, ...]) -> _Reader:
    readers = [_reader(part) for part in parts if part is not NoneType]
    allows_none = NoneType in parts

    def read_union(value: object, key: str) -> object:
        if value is None and allows_none:
            return None
        for reader in readers[:-1]:
            try:
                return reader(value, key)
            except JsonTypeError:
                continue
        return readers[-1](value, key)

    return read_union


def _sequence(kind: type, reader: _Reader) -> _Reader:
    def read_sequence(value: object, key: str) -> object:
        if not isinstance(value, (list, tuple)):
            raise JsonTypeError(key, value, "a list")
        return kind(reader(item, f"{key}[{index}]") for index, item in enumerate(value))

    return read_sequence


def _fixed_tuple(readers: list[_Reader]) -> _Reader:
    def read_tuple(value: object, key: str) -> object:
        if not isinstance(value, (list, tuple)) or len(value) != len(readers):
            raise JsonTypeError(key, value, f"a list of {len(readers)}")
        return tuple(
            reader(item, f"{key}[{index}]") for index, (reader, item) in enumerate(zip(readers, value, strict=True))
        )

    return read_tuple


def _mapping(reader: _Reader) -> _Reader:
    def read_mapping(value: object, key: str) -> object:
        if not isinstance(value, Mapping):
            raise JsonTypeError(key, value, "a mapping from keys to values")
        return {str(name): reader(item, _child(key, str(name))) for name, item in value.items()}

    return read_mapping


def _child(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
