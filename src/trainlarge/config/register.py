"""Registers the schema with Hydra: unknown keys and wrong types are refused when a configuration is composed.

The schema is made of the dataclasses of the configuration. Hydra changes it while it composes, so it is not frozen.
OmegaConf has no literals and no tuples: they are text and lists there. A recipe is the groups of its slots, each with
the keys of the chosen method; a group with one dataclass per name has the keys of the chosen one. The group ``sweep``
is in the schema only: it makes the cells and is no part of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field, fields, make_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from trainlarge.config.group import is_group
from trainlarge.config.identity import once_per_class
from trainlarge.config.named import Named
from trainlarge.config.recipe import RECIPE_KEYS, Recipe
from trainlarge.config.schema import CHOSEN_GROUPS, CONFIGS
from trainlarge.config.share import has_file
from trainlarge.config.sweep import SweepConfig

_MUTABLE: dict[type, Callable[[], object]] = {
    tuple: list,
    # Hydra sets the flag ``struct`` for all that has none of its own, and refuses new keys then.
    Named: lambda: DictConfig({}, flags={"struct": False}),
}
"""Type of a default -> what makes the one that OmegaConf has in its place."""
MAY_BE_LISTS = ("budget",)
"""Keys that may also be a list, each of whose values makes a cell."""


def register_schema() -> None:
    """Store the root schemas as ``schema/train`` and ``schema/compress``, that of a choice as ``schema/task/mlm``.

    A choice that has no file in ``conf/``, as one of an installed package, can be chosen with its defaults.
    """
    _register(
        tuple((key, name, kind) for key, group in CHOSEN_GROUPS.items() for name, kind in group.by_name().items())
    )


@cache
def _register(choices: tuple[tuple[str, str, type], ...]) -> None:
    """Once for the same choices: Hydra takes some hundredths of a second for them."""
    store = ConfigStore.instance()
    for key, name, kind in choices:
        groups = [f"schema/{key}"] if has_file(key, name) else [f"schema/{key}", key]
        for group in groups:
            store.store(group=group, name=name, node=_schema(kind), package=key)
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


def _fields(kind: type) -> Iterator[tuple[str, Any, Any]]:
    hints = get_type_hints(kind)
    for item in fields(kind):
        hint = hints[item.name]
        if hint is Recipe:
            defaults = {part.name: part.default for part in fields(Recipe)}
            yield from ((key, Any, field(default=defaults[key])) for key in RECIPE_KEYS)
        elif item.name in CHOSEN_GROUPS:
            yield item.name, Any, field(default=None)
        elif group := next(filter(is_group, () if get_origin(hint) is Named else (hint, *get_args(hint))), None):
            yield item.name, _schema(group), field(default_factory=_schema(group))
        else:
            default = next((mutable for kind, mutable in _MUTABLE.items() if isinstance(item.default, kind)), None)
            value = field(default_factory=default) if default else field(default=item.default)
            yield item.name, Any if item.name in MAY_BE_LISTS else _hydra_type(hint), value


def _hydra_type(hint: object) -> object:
    """The type as OmegaConf knows it: ``Any`` where it has none."""
    origin, parts = get_origin(hint), [part for part in get_args(hint) if part is not NoneType]
    if origin in (Union, UnionType):
        return Optional[_hydra_type(parts[0])] if len(parts) == 1 else Any  # noqa: UP045 - not written as a type
    if origin is tuple:
        return list[_hydra_type(parts[0])] if parts[-1] is Ellipsis else Any  # type: ignore[misc]
    if origin is Named:
        return Any
    if origin is Literal:
        return str
    return hint if hint in (str, int, float, bool) else Any
