"""What turns a value of YAML or JSON into that of a typed field, or refuses it.

Configurations (``plain.py``) and small files (``typed_json.py``) are read by the same readers. They differ in the error
and in how a dataclass within a dataclass is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, ForwardRef, Literal, Union, cast, get_args, get_origin

from trainlarge.config.group import Group, one_of
from trainlarge.config.named import Named

Reader = Callable[[object, str], object]
"""Reads a value; the second argument is its key, for errors."""
_SCALARS: Mapping[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
}


@dataclass(frozen=True)
class Readers:
    """Makes the reader of a type."""

    refusal: Callable[[str, object, str], ValueError]
    """The error of a key, its value, and what is allowed."""
    of_dataclass: Callable[[type], Reader]
    """Makes the reader of a dataclass."""

    def of(self, hint: object) -> Reader:
        """The reader of a type.

        Types may be text, numbers, true or false, null, ``Literal``, ``StrEnum``, dataclasses, ``Plain``, ``object``,
        and tuples, lists, mappings and unions of these.
        """
        origin, parts = get_origin(hint), get_args(hint)
        if hint in (Any, object) or isinstance(hint, ForwardRef) or _is_plain(hint):
            return lambda value, _key: value
        if isinstance(hint, type) and is_dataclass(hint):
            return self.of_dataclass(hint)
        if origin is Literal:
            return self._one_of(parts)
        if isinstance(hint, type) and issubclass(hint, StrEnum):
            return self._member_of(hint)
        if origin in (Union, UnionType):
            return self._union(parts)
        if origin is tuple and parts[-1] is not Ellipsis:
            return self._fixed_tuple([self.of(part) for part in parts])
        if origin is Named:
            return self._named(self.of(parts[0]))
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping(self.of(parts[1]))
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return self._sequence(tuple if origin is tuple else list, self.of(parts[0]))
        return self._scalar(hint)

    def _scalar(self, kind: object) -> Reader:
        def read_scalar(value: object, key: str) -> object:
            if type(value) is kind:
                return value
            if kind is float and type(value) is int:
                return float(value)
            raise self.refusal(key, value, _SCALARS[kind])

        return read_scalar

    def _one_of(self, allowed: tuple[object, ...]) -> Reader:
        def read_choice(value: object, key: str) -> object:
            if not isinstance(value, (str, int, float, bool, NoneType)) or value not in allowed:
                raise self.refusal(key, value, one_of(allowed))
            return value

        return read_choice

    def _member_of(self, kind: type[StrEnum]) -> Reader:
        members = {member.value: member for member in kind}

        def read_member(value: object, key: str) -> object:
            if not isinstance(value, str) or value not in members:
                raise self.refusal(key, value, one_of(tuple(members)))
            return members[value]

        return read_member

    def _union(self, parts: tuple[object, ...]) -> Reader:
        allows_none = NoneType in parts
        readers = [
            self._one_of((*get_args(part), None)) if allows_none and get_origin(part) is Literal else self.of(part)
            for part in parts
            if part is not NoneType
        ]

        def read_union(value: object, key: str) -> object:
            if value is None and allows_none:
                return None
            for reader in readers[:-1]:
                try:
                    return reader(value, key)
                except ValueError:
                    continue
            return readers[-1](value, key)

        return read_union

    def _sequence(self, kind: type[tuple[object, ...]] | type[list[object]], reader: Reader) -> Reader:
        def read_sequence(value: object, key: str) -> object:
            if not isinstance(value, (list, tuple)):
                raise self.refusal(key, value, f"a list: {key}=[...]")
            return kind(reader(item, f"{key}[{index}]") for index, item in enumerate(value))

        return read_sequence

    def _fixed_tuple(self, readers: list[Reader]) -> Reader:
        def read_tuple(value: object, key: str) -> object:
            if not isinstance(value, (list, tuple)) or len(value) != len(readers):
                raise self.refusal(key, value, f"a list of {len(readers)}")
            pairs = enumerate(zip(readers, value, strict=True))
            return tuple(reader(item, f"{key}[{index}]") for index, (reader, item) in pairs)

        return read_tuple

    def _named(self, reader: Reader) -> Reader:
        read_mapping = self._mapping(reader)
        return lambda value, key: Named(cast("Mapping[str, Group]", read_mapping(value, key)))

    def _mapping(self, reader: Reader) -> Reader:
        def read_mapping(value: object, key: str) -> object:
            if not isinstance(value, Mapping):
                raise self.refusal(key, value, "a mapping from keys to values")
            return {str(name): reader(item, child(key, str(name))) for name, item in value.items()}

        return read_mapping


def taken_as_they_are(hint: object) -> frozenset[type]:
    """The scalar types of a hint: most values are of these, and asking takes less time than calling a reader."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return frozenset(part for part in parts if part in _SCALARS)


def child(key: str, name: str) -> str:
    """The full key of ``name`` within ``key``."""
    return f"{key}.{name}" if key else name


def _is_plain(hint: object) -> bool:
    """Whether a type is ``Plain``: a union that refers to itself."""
    return get_origin(hint) in (Union, UnionType) and any(
        isinstance(inner, ForwardRef) for part in get_args(hint) for inner in get_args(part)
    )
