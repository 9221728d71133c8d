"""What every group of a configuration shares: it is frozen, and it checks itself when it is built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from types import NoneType, UnionType
from typing import ClassVar, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from trainlarge.config.canonical import canonical_json
from trainlarge.config.identity import field_names, identifying, once_per_class
from trainlarge.config.reads import Unread, unread
from trainlarge.errors import NOT_SET, UserError

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
"""What YAML and JSON can hold."""

WHOLE_NUMBERS = range(-(2**63), 2**63)
"""Whole numbers that fit into 64 bits, as every library and every file has them."""
BEYOND_WHOLE_NUMBERS = f"a whole number below 2^63, {2**63:,}"
MOST_ITEMS = 1_000_000
"""Items of a list, or characters of a text."""
G = TypeVar("G", bound="Group")


@dataclass(frozen=True)
class Group:
    """A group of the configuration, such as ``arch``: one dataclass, one field per key.

    A subclass states what else must hold in ``check``.
    """

    key: ClassVar[str] = ""
    """The name of the group in the configuration."""

    @classmethod
    def kind(cls, data: Mapping[str, Plain]) -> type[Group]:
        """The dataclass that holds these plain data of the group: itself, unless the group has one per name."""
        return cls

    @classmethod
    def known(cls, data: Mapping[str, Plain]) -> dict[str, Plain]:
        """Plain data of the group as far as this dataclass reads them: all, unless the group has one per name."""
        return dict(data)

    def __post_init__(self) -> None:
        for name in field_names(type(self)):
            check_value(f"{self.key}.{name}", getattr(self, name))
        for name, allowed in choices(type(self)).items():
            self.require(name, getattr(self, name) in allowed, one_of(allowed))
        self.check()

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            UserError: naming the key.
        """

    @cached_property
    def plain(self) -> dict[str, Plain]:
        """The group as plain data, never changed: one dictionary for all cells that share the group."""
        return {name: as_plain(getattr(self, name)) for name in field_names(type(self))}

    @cached_property
    def identity(self) -> dict[str, Plain]:
        """What of the group the id of a cell is made of, never changed."""
        return {name: _identifying_plain(value) for name, value in identifying(self).items()}

    @cached_property
    def identity_json(self) -> str:
        """``identity`` as canonical JSON."""
        return canonical_json(self.identity)

    @cached_property
    def unread(self) -> tuple[Unread, ...]:
        """Keys that are set and that nobody reads with the values of the others."""
        kind = type(self)
        return tuple(unread(kind, {name: getattr(self, name) for name in field_names(kind)}, self.key))

    def require(self, name: str, is_valid: bool, allowed: str) -> None:
        """Raise the UserError of the key ``<group>.<name>`` unless its value is valid."""
        if not is_valid:
            raise UserError(f"{self.key}.{name}", getattr(self, name), allowed)

    def require_least(self, least: float, *names: str) -> None:
        """Raise a UserError unless each of these numbers is at least ``least``."""
        for name in names:
            self.require(name, getattr(self, name) >= least, f"a number of at least {least}")

    def require_whole(self, least: int, *names: str, most: int | None = None) -> None:
        """Raise a UserError unless each of these whole numbers is at least ``least``, and at most ``most``."""
        allowed = f"a whole number of at least {least}" + ("" if most is None else f" and at most {most:,}")
        for name in names:
            value = getattr(self, name)
            self.require(name, value >= least and (most is None or value <= most), allowed)


def check_value(key: str, value: object) -> None:
    """Refuse what no key can have, whatever its type: no value, infinity, too large a number, too long a text or list.

    Raises:
        UserError: naming the key.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(key, value, "a finite number")
    elif isinstance(value, int):
        if value not in WHOLE_NUMBERS:
            raise UserError(key, value, BEYOND_WHOLE_NUMBERS)
    elif isinstance(value, (str, list, tuple)):
        _check_long_value(key, value)


def _check_long_value(key: str, value: str | Sequence[object]) -> None:
    if isinstance(value, str) and value == NOT_SET:
        raise UserError(key, NOT_SET, "must have a value")
    if len(value) > MOST_ITEMS:
        counted = "characters" if isinstance(value, str) else "items"
        raise UserError(key, value, f"at most {MOST_ITEMS:,} {counted}")
    for item in () if isinstance(value, str) else value:
        check_value(key, item)


def with_values(group: G, **values: object) -> G:
    """The group with other values: one object for equal groups and values.

    What follows from it is then computed once for all cells that share it.
    """
    return cast(G, _with_values(group, tuple(values.items())))


@lru_cache(maxsize=4096)
def _with_values(group: Group, values: tuple[tuple[str, object], ...]) -> Group:
    return replace(group, **dict(values))


@once_per_class
def choices(kind: type) -> dict[str, tuple[str | None, ...]]:
    """The fields of a dataclass that take one of a few values, with these values: those of their ``Literal`` types."""
    allowed = {}
    for name, hint in get_type_hints(kind).items():
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        values = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
        if values:
            allowed[name] = (*values, None) if NoneType in parts else tuple(values)
    return allowed


def one_of(allowed: tuple[object, ...]) -> str:
    """Values as they are listed in an error: ``one of documents, grouped, null``."""
    return f"one of {', '.join('null' if value is None else str(value) for value in allowed)}"


def as_plain(value: object) -> Plain:
    """A value of a field as plain data: a tuple becomes a list, groups with names a dictionary."""
    if isinstance(value, (tuple, list)):
        return [as_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: as_plain(item) for name, item in value.items()}
    return value.plain if isinstance(value, Group) else cast(Plain, value)


def _identifying_plain(value: object) -> Plain:
    """As ``as_plain``; of groups with names, what their ids are made of."""
    if isinstance(value, Mapping):
        return {name: item.identity if isinstance(item, Group) else as_plain(item) for name, item in value.items()}
    return as_plain(value)


@once_per_class
def groups_of(kind: type) -> dict[str, type[Group]]:
    """Key -> group, for the fields of a whole configuration that are groups, or are groups where they are not null."""
    hints = {name: (hint, *get_args(hint)) for name, hint in get_type_hints(kind).items()}
    groups = {name: [part for part in parts if is_group(part)] for name, parts in hints.items()}
    return {name: parts[0] for name, parts in groups.items() if parts}


def is_group(hint: object) -> bool:
    """Whether a type is that of a group."""
    return isinstance(hint, type) and issubclass(hint, Group)
