"""What every group of a configuration shares: it is frozen, and it checks itself when it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from types import NoneType, UnionType
from typing import ClassVar, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from trainlarge.config.canonical import canonical_json
from trainlarge.config.identity import field_names, identifying, once_per_class
from trainlarge.errors import UserError

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
"""What YAML and JSON can hold."""

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
        return {name: as_plain(value) for name, value in identifying(self).items()}

    @cached_property
    def identity_json(self) -> str:
        """``identity`` as canonical JSON."""
        return canonical_json(self.identity)

    def require(self, name: str, is_valid: bool, allowed: str) -> None:
        """Raise the UserError of the key ``<group>.<name>`` unless its value is valid."""
        if not is_valid:
            raise UserError(f"{self.key}.{name}", getattr(self, name), allowed)

    def require_least(self, least: float, *names: str) -> None:
        """Raise a UserError unless each of these numbers is at least ``least``."""
        for name in names:
            self.require(name, getattr(self, name) >= least, f"a number of at least {least}")

    def require_whole(self, least: int, *names: str) -> None:
        """Raise a UserError unless each of these whole numbers is at least ``least``."""
        for name in names:
            self.require(name, getattr(self, name) >= least, f"a whole number of at least {least}")


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
    """A value of a field as plain data: a tuple becomes a list."""
    return [as_plain(item) for item in value] if isinstance(value, (tuple, list)) else cast(Plain, value)


@once_per_class
def groups_of(kind: type) -> dict[str, type[Group]]:
    """Key -> group, for the fields of a whole configuration that are groups, or are groups where they are not null."""
    hints = {name: (hint, *get_args(hint)) for name, hint in get_type_hints(kind).items()}
    groups = {name: [part for part in parts if is_group(part)] for name, parts in hints.items()}
    return {name: parts[0] for name, parts in groups.items() if parts}


def is_group(hint: object) -> bool:
    """Whether a type is that of a group."""
    return isinstance(hint, type) and issubclass(hint, Group)
