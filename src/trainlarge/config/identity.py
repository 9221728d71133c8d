"""What an id is made of, said at the field: the metadata of a dataclass field, and what is read from it.

encoding: str = field(default="utf-8", metadata=added_with("utf-8"))
impl: ImplConfig = field(default_factory=ImplConfig, metadata=NOT_IDENTITY)
checkpoint_digest: str | None = field(default=None, metadata=stands_for("checkpoint"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import cache
from typing import TypeVar, cast

R = TypeVar("R")

NOT_IDENTITY: Mapping[str, object] = {"identity": False}
"""Metadata of a field that cannot change a result, or whose content another field stands for."""
OMITTED_WHERE_NONE: Mapping[str, object] = {"omitted_where_none": True}
"""Metadata of a field that is written, and part of an id, only where it has a value."""
NEVER = object()
"""The value of a field that has been there from the start."""


def added_with(value: object) -> Mapping[str, object]:
    """Metadata of a field that was added after cells had been made.

    Args:
        value: the one under which a cell, or a method, is what it was without the field. It stays out of the identity,
            so ids and files from before stay as they are. It need not be the default, and it never changes.
    """
    return {"added_with": value}


def stands_for(name: str) -> Mapping[str, object]:
    """Metadata of a field that, where it is set, takes the place of the field ``name`` in the identity.

    An example is the digest of what a path leads to, for the path.
    """
    return {"stands_for": name}


def once_per_class(describe: Callable[[type], R]) -> Callable[[type], R]:
    """``describe`` with its answers kept: what it says of a class never changes, and callers do not change it."""
    return cast("Callable[[type], R]", cache(describe))


def value_before(item: Field[object]) -> object:
    """The value that a field has in data from before it was added; ``NEVER`` where it has always been there."""
    return item.metadata.get("added_with", NEVER)


@once_per_class
def names_not_identity(kind: type) -> frozenset[str]:
    """The fields of a dataclass that are never part of an id."""
    return frozenset(item.name for item in fields(kind) if not item.metadata.get("identity", True))


@once_per_class
def added_fields(kind: type) -> dict[str, object]:
    """Fields of a dataclass that were added later, with the values under which ids stay."""
    return {item.name: value for item in fields(kind) if (value := value_before(item)) is not NEVER}


@once_per_class
def omitted_where_none(kind: type) -> frozenset[str]:
    """The fields of a dataclass that are written only where they have a value."""
    return frozenset(item.name for item in fields(kind) if item.metadata.get("omitted_where_none"))


@once_per_class
def field_names(kind: type) -> tuple[str, ...]:
    """The names of the fields of a dataclass."""
    return tuple(item.name for item in fields(kind))


@once_per_class
def stand_ins(kind: type) -> dict[str, str]:
    """Field that holds a digest -> the field that it stands for."""
    return {item.name: item.metadata["stands_for"] for item in fields(kind) if "stands_for" in item.metadata}


def without_added(instance: object) -> dict[str, object]:
    """The fields of a dataclass instance, but those with the value that they had before they were added."""
    later = added_fields(type(instance))
    values = {name: getattr(instance, name) for name in field_names(type(instance))}
    return {name: value for name, value in values.items() if name not in later or value != later[name]}


def identifying(instance: object) -> dict[str, object]:
    """The fields of a dataclass instance that its id is made of."""
    kind = type(instance)
    hidden = names_not_identity(kind) | {path for digest, path in stand_ins(kind).items() if getattr(instance, digest)}
    return {name: value for name, value in without_added(instance).items() if name not in hidden}
