"""Configurations as plain data, which YAML and JSON can hold, and back to exactly the same data.

A group becomes a dictionary in the order of its fields, a tuple a list, and a recipe the groups of its slots among the
other keys. Reading checks names and types. A key that is missing has the value from before it was added, or its
default. Groups are read once for equal data and shared: ten thousand cells have few different groups.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Group, Plain, as_plain, groups_of, is_group
from trainlarge.config.identity import added_fields, identifying, names_not_identity, omitted_where_none, once_per_class
from trainlarge.config.recipe import SLOTS, Recipe
from trainlarge.errors import UserError

T = TypeVar("T")
_Reader = Callable[[Any, str], Any]
_RECIPE = (*SLOTS, "order")
"""The keys that a recipe has among those of its configuration."""
_TYPES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def to_plain(config: object) -> dict[str, Plain]:
    """A whole configuration as plain data, whose groups are never changed: other configurations share them."""
    written: dict[str, Plain] = {}
    for name, value in _values(config, vars(config)):
        written |= value.to_config() if isinstance(value, Recipe) else {name: _plain(value)}
    return written


def identity_of(config: object) -> dict[str, Plain]:
    """What of a whole configuration the id of its cell is made of, as plain data."""
    written: dict[str, Plain] = {}
    for name, value in _values(config, identifying(config)):
        written |= value.to_config() if isinstance(value, Recipe) else {name: _identity(value)}
    return written


def identity_json(config: object) -> str:
    """``canonical_json(identity_of(config))``, from the text of each group, which is made once for all its cells."""
    texts: dict[str, str] = {}
    for name, value in _values(config, identifying(config)):
        if isinstance(value, Recipe):
            texts |= {key: canonical_json(part) for key, part in value.to_config().items()}
        else:
            texts[name] = value.identity_json if isinstance(value, Group) else canonical_json(as_plain(value))
    # Names of fields, which JSON writes as they are.
    return "{" + ",".join([f'"{name}":{texts[name]}' for name in sorted(texts)]) + "}"


def from_plain(kind: type[T], data: Any, key: str = "") -> T:
    """The configuration, or the group ``key`` of one, that plain data describe.

    Raises:
        UserError: for an unknown key or a value of another type, naming it.
    """
    if not isinstance(data, dict):
        raise UserError(key or "configuration", data, "a mapping from keys to values")
    readers, recipe = _readers(kind), _recipe_data(kind, data)
    values: dict[str, Any] = {"recipe": _recipe(marshal.dumps(recipe, 2))} if recipe is not None else {}
    for name, value in data.items():
        if name in readers:
            values[name] = readers[name](value, _child(key, name))
        elif recipe is None or name not in recipe:
            raise UserError(_child(key, name), value, f"no such key: must be one of the keys {', '.join(keys(kind))}")
    return kind(**{**added_fields(kind), **values})


def with_added(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    """Plain data of a whole configuration that may be older than some keys, with the values from before.

    It is neither read nor checked, which ten thousand records would take seconds for.
    """
    groups = {name: {**later, **data[name]} for name, later in _added_in_groups(kind).items() if name in data}
    return {**_added_in_group(kind), **data, **groups}


def not_identity(kind: type) -> dict[str, frozenset[str]]:
    """Group, or "" for the whole configuration -> its keys that are no part of an id."""
    groups = {name: names_not_identity(group) for name, group in groups_of(kind).items()}
    return {"": names_not_identity(kind), **groups}


def keys(kind: type) -> list[str]:
    """The keys of a configuration or a group."""
    return [key for name in _readers(kind) for key in (_RECIPE if name == "recipe" else (name,))]


def _values(config: object, values: dict[str, Any]) -> list[tuple[str, Any]]:
    omitted = omitted_where_none(type(config))
    return [(name, value) for name, value in values.items() if value is not None or name not in omitted]


def _plain(value: Any) -> Plain:
    return value.plain if isinstance(value, Group) else as_plain(value)


def _identity(value: Any) -> Plain:
    return value.identity if isinstance(value, Group) else as_plain(value)


def _recipe_data(kind: type, data: dict[str, Any]) -> dict[str, Any] | None:
    """What of the data belongs to a recipe; None where the configuration has none."""
    return {name: data[name] for name in _RECIPE if name in data} if "recipe" in _readers(kind) else None


@lru_cache(maxsize=4096)
def _recipe(marshalled: bytes) -> Recipe:
    return Recipe.from_config(**marshal.loads(marshalled))


@lru_cache(maxsize=4096)
def _group(kind: type[Group], marshalled: bytes, key: str) -> Any:
    data = marshal.loads(marshalled)
    if not isinstance(data, dict):
        return from_plain(kind, data, key)
    chosen = kind.kind(data)
    return from_plain(chosen, chosen.known(data), key)


@once_per_class
def _added_in_group(kind: type) -> dict[str, Plain]:
    return {name: as_plain(value) for name, value in added_fields(kind).items()}


@once_per_class
def _added_in_groups(kind: type) -> dict[str, dict[str, Plain]]:
    return {name: added for name, group in groups_of(kind).items() if (added := _added_in_group(group))}


@once_per_class
def _readers(kind: type) -> dict[str, _Reader]:
    """Field -> what reads its value, given the value and its key."""
    hints = get_type_hints(kind)
    return {item.name: _reader(hints[item.name]) for item in fields(kind)}


def _reader(hint: Any) -> _Reader:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _or_none(_reader(next(part for part in parts if part is not type(None))))
    if origin is tuple:
        return _tuple_of(_reader(parts[0]))
    if is_group(hint):
        # Of version 2, marshalled data are the same bytes for equal values; JSON takes several times as long.
        return lambda value, key: _group(hint, marshal.dumps(value, 2), key)
    if origin is Literal:
        return _scalar(str)
    return _scalar(hint) if hint in _TYPES else lambda value, _key: _frozen(value)


def _or_none(reader: _Reader) -> _Reader:
    return lambda value, key: None if value is None else reader(value, key)


def _tuple_of(reader: _Reader) -> _Reader:
    def read(value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise UserError(key, value, f"a list: {key}=[...]")
        return tuple(reader(item, key) for item in value)

    return read


def _scalar(kind: type) -> _Reader:
    def read(value: Any, key: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise UserError(key, value, _TYPES[kind])

    return read


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _child(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)
