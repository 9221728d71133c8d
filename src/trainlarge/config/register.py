"""Registers the schema with Hydra: unknown keys and wrong types are refused when a configuration is composed.

The schema is made of the dataclasses of the configuration. Hydra changes it while it composes, so it is not frozen.
OmegaConf has no literals and no tuples: they are text and lists there. A recipe is the groups of its slots, each with
the keys of the chosen method. The group ``sweep`` is in the schema only: it makes the cells and is no part of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore

from trainlarge.config.choices import ChosenGroup
from trainlarge.config.identity import once_per_class
from trainlarge.config.recipe import SLOTS, Recipe
from trainlarge.config.schema import CONFIGS
from trainlarge.config.sweep import SweepConfig
from trainlarge.config.task import TASKS

ANY = ("budget", "task")
"""A key that may also be a list, each of whose values makes a cell, and a group whose keys are those of its name."""


def register_schema() -> None:
    """Store the root schemas as ``schema/train`` and ``schema/compress``."""
    store = ConfigStore.instance()
    for name, task in TASKS.items():
        store.store(group="task", name=f"keys_of_{name}", node=_schema(task))
    for stage in CONFIGS:
        store.store(group="schema", name=stage, node=hydra_schema(stage), package="_global_")


@cache
def hydra_schema(stage: str) -> type:
    """The dataclass that describes a stage's whole configuration to Hydra."""
    kind = CONFIGS[stage]
    sweep = ("sweep", _schema(SweepConfig), field(default_factory=_schema(SweepConfig)))
    return make_dataclass(kind.__name__, [*_fields(kind), sweep])


@once_per_class
def _schema(kind: type) -> type:
    return make_dataclass(kind.__name__, list(_fields(kind)))


def _schema_of_all(group: type[ChosenGroup]) -> type:
    """The keys of all choices of a group."""
    items: dict[str, tuple[str, Any, Any]] = {}
    for kind in (group, *group.by_name().values()):
        for item in _fields(kind):
            items.setdefault(item[0], item)
    return make_dataclass(group.__name__, list(items.values()))


def _fields(kind: type) -> Iterator[tuple[str, Any, Any]]:
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        if hint is Recipe:
            yield from ((key, Any, field(default=None)) for key in (*SLOTS, "order"))
        elif item.name in ANY:
            yield item.name, Any, field(default=None if isinstance(item.default, type(MISSING)) else item.default)
        elif group := next((part for part in (hint, *get_args(hint)) if is_dataclass(part)), None):
            schema = _schema_of_all(group) if issubclass(group, ChosenGroup) else _schema(group)  # type: ignore[arg-type]
            yield item.name, schema, field(default_factory=schema)
        else:
            yield item.name, _hydra_type(hint), _default(item)


def _default(item: Field[Any]) -> Any:
    if isinstance(item.default, tuple):
        return field(default_factory=list)
    return field(default=item.default) if item.default is not MISSING else field()


def _hydra_type(hint: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _hydra_type(next(part for part in parts if part is not type(None))) | None
    if origin is tuple:
        return list[_hydra_type(parts[0])]  # type: ignore[misc]
    return str if origin is Literal else hint
