"""Configurations as plain data, which YAML and JSON can hold, and back to exactly the same data.

A group becomes a dictionary in the order of its fields, a tuple a list, and a recipe the groups of its slots among the
other keys. Reading checks names and types. A key that is missing has the value from before it was added, or its
default. Groups are read once for equal data and shared: ten thousand cells have few different groups.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeVar, cast, get_type_hints

from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Group, Plain, as_plain, groups_of
from trainlarge.config.identity import (
    added_fields,
    field_names,
    identifying,
    names_not_identity,
    omitted_where_none,
    once_per_class,
    stand_ins,
)
from trainlarge.config.readers import Reader, Readers, taken_as_they_are
from trainlarge.config.recipe import NO_METHOD, RECIPE_KEYS, SLOTS, Recipe
from trainlarge.errors import UserError, shown

T = TypeVar("T")


def to_plain(config: object) -> dict[str, Plain]:
    """A whole configuration as plain data, whose groups are never changed: other configurations share them."""
    written: dict[str, Plain] = {}
    for name, value in _with_value(config, vars(config)):
        if isinstance(value, Recipe):
            written |= value.to_config()
        else:
            written[name] = value.plain if isinstance(value, Group) else as_plain(value)
    return written


def identity_of(config: object) -> dict[str, Plain]:
    """What of a whole configuration the id of its cell is made of, as plain data."""
    written: dict[str, Plain] = {}
    for name, value in _with_value(config, identifying(config)):
        if isinstance(value, Recipe):
            written |= value.to_config()
        else:
            written[name] = value.identity if isinstance(value, Group) else as_plain(value)
    return written


def identity_json(config: object) -> str:
    """``canonical_json(identity_of(config))``, from the text of each group, which is made once for all its cells."""
    texts: dict[str, str] = {}
    for name, value in _with_value(config, identifying(config)):
        if isinstance(value, Recipe):
            texts |= {key: canonical_json(part) for key, part in value.to_config().items()}
        else:
            texts[name] = value.identity_json if isinstance(value, Group) else canonical_json(as_plain(value))
    # Names of fields, which JSON writes as they are.
    return "{" + ",".join([f'"{name}":{texts[name]}' for name in sorted(texts)]) + "}"


def from_plain(kind: type[T], data: object, key: str = "") -> T:
    """The configuration, or the group ``key`` of one, that plain data describe.

    Raises:
        UserError: for an unknown key or a value of another type, naming it.
    """
    if not isinstance(data, dict):
        raise UserError(key or "configuration", data, "a mapping from keys to values")
    readers, values, prefix = _readers(kind), dict[str, object](), f"{key}." if key else ""
    slots = RECIPE_KEYS if "recipe" in field_names(kind) else ()
    if slots:
        values["recipe"] = _recipe(marshal.dumps({name: data[name] for name in slots if name in data}, 2))
    for name, value in data.items():
        if name in readers:
            scalars, reader = readers[name]
            values[name] = value if type(value) in scalars else reader(value, prefix + name)
        elif name not in slots:
            allowed = f"no such key: must be one of the keys {', '.join(keys(kind))}"
            raise UserError(f"{prefix}{name}", value, allowed)
    return kind(**{**added_fields(kind), **values})


def with_added(kind: type, data: dict[str, Plain]) -> dict[str, Plain]:
    """Plain data of a whole configuration that may be older than some keys, with the values from before.

    It is neither read nor checked, which ten thousand records would take seconds for.
    """
    added = {name: (later, data.get(name)) for name, later in _added_in_groups(kind).items()}
    groups = {name: {**later, **group} for name, (later, group) in added.items() if isinstance(group, dict)}
    return {**_added_in_group(kind), **data, **groups}


def value_before(kind: type, key: str) -> Plain:
    """What it means that a file does not have ``key``: its value from before it was added.

    None for a key that has always been there. A slot of a recipe that is absent is one that is ``none``.
    """
    group, _, name = key.rpartition(".")
    if group in SLOTS:
        return NO_METHOD if name == "name" else None
    return _added_in_group(groups_of(kind)[group] if group else kind).get(name)


def not_identity(kind: type) -> dict[str, frozenset[str]]:
    """Group, or "" for the whole configuration -> its keys that are no part of an id."""
    groups = {name: names_not_identity(group) for name, group in groups_of(kind).items()}
    return {"": names_not_identity(kind), **groups}


def digest_keys(kind: type) -> frozenset[str]:
    """Keys of a configuration that hold digests: they are filled in from what another key leads to."""
    groups = {f"{group}.{name}" for group, part in groups_of(kind).items() for name in stand_ins(part)}
    return frozenset(groups | set(stand_ins(kind)))


def keys(kind: type) -> list[str]:
    """The keys of a configuration or a group."""
    return [key for name in field_names(kind) for key in (RECIPE_KEYS if name == "recipe" else (name,))]


def _with_value(config: object, values: Mapping[str, object]) -> list[tuple[str, object]]:
    """Without fields that are written only where they have a value."""
    omitted = omitted_where_none(type(config))
    return [(name, value) for name, value in values.items() if value is not None or name not in omitted]


@lru_cache(maxsize=4096)
def _recipe(marshalled: bytes) -> Recipe:
    return Recipe.from_config(**marshal.loads(marshalled))


@lru_cache(maxsize=4096)
def _group(kind: type, marshalled: bytes, key: str) -> Group:
    data, group = marshal.loads(marshalled), cast("type[Group]", kind)
    if not isinstance(data, dict):
        return from_plain(group, data, key)
    chosen = group.kind(data)
    try:
        return from_plain(chosen, chosen.known(data), key)
    except UserError as error:
        # A group that a user names does not know its name.
        if error.key.startswith(f"{key}.") or not error.key.startswith(f"{chosen.key}."):
            raise
        raise UserError(f"{key}{error.key.removeprefix(chosen.key)}", error.value, error.allowed) from None


@once_per_class
def _added_in_group(kind: type) -> dict[str, Plain]:
    return {name: as_plain(value) for name, value in added_fields(kind).items()}


@once_per_class
def _added_in_groups(kind: type) -> dict[str, dict[str, Plain]]:
    return {name: added for name, group in groups_of(kind).items() if (added := _added_in_group(group))}


@once_per_class
def _readers(kind: type) -> dict[str, tuple[frozenset[type], Reader]]:
    """Field -> types of values that are taken as they are, and what reads others."""
    hints = {
        name: hint for name, hint in get_type_hints(kind).items() if name in field_names(kind) and name != "recipe"
    }
    return {name: (taken_as_they_are(hint), _READERS.of(hint)) for name, hint in hints.items()}


def _group_reader(kind: type) -> Reader:
    # Of version 2, marshalled data are the same bytes for equal values; JSON takes several times as long.
    return lambda value, key: _group(kind, marshal.dumps(value, 2), key)  # type: ignore[arg-type]


def _refusal(key: str, value: object, allowed: str) -> UserError:
    return UserError(key, shown(value), allowed)


_READERS = Readers(_refusal, _group_reader)
