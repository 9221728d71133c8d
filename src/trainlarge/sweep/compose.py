"""Points of a sweep to full configurations: composed by Hydra once for each choice of groups, then varied by value."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import cache
from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainlarge.config.choices import key_of_another
from trainlarge.config.group import Plain
from trainlarge.config.schema import CHOSEN_GROUPS
from trainlarge.config.share import choices_of
from trainlarge.errors import UserError
from trainlarge.sweep.grid import Point
from trainlarge.sweep.text_keys import as_written, text_keys

TARGET = "_target_"
"""The key by which a configuration names what Hydra is to call."""
Compose = Callable[[list[str]], DictConfig]
"""Composes a configuration from Hydra overrides."""
Composed = dict[str, Plain]
"""A configuration as Hydra composed it: plain data with the group ``sweep``, and perhaps several budgets."""
_NAME = re.compile(r"[\w./-]+")
_NOT_NULL = "must have a value, and null means none"


class Composer:
    """Turns points into plain configurations.

    Composing costs tens of milliseconds, so it is done once for each choice of groups; a value is checked against the
    schema once, then set in a plain copy. A configuration with interpolations is resolved again for every point.
    What a point does not set is the same object in all configurations: they are never changed in place.
    """

    def __init__(self, compose: Compose, is_group: Callable[[str], bool]) -> None:
        # Hydra searches its folders each time that it is asked for a group.
        self._compose, self._is_group = compose, cache(is_group)
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._plain: dict[tuple[str, ...], Composed] = {}
        self._checked: dict[tuple[tuple[str, ...], str, str], Plain] = {}
        self._scratch: dict[tuple[tuple[str, ...], str], DictConfig] = {}

    def config(self, point: Point) -> Composed:
        """The full configuration of a point, as plain data.

        Raises:
            UserError: for a key that the schema does not have, or a value of the wrong type.
        """
        choices = tuple(_choice(key, value) for key, value in point.items() if self._is_group(key))
        values = {key: value for key, value in point.items() if not self._is_group(key)}
        base = self._base(choices)
        if choices not in self._plain:
            return plain(_updated(base, values))
        config = self._plain[choices]
        for key, value in values.items():
            config = with_value(config, key.split("."), self._checked_value(choices, key, value))
        return config

    def _base(self, choices: tuple[str, ...]) -> DictConfig:
        if choices not in self._bases:
            base = self._bases[choices] = self._compose(list(choices))
            if not _has_interpolation(OmegaConf.to_container(base)):
                self._plain[choices] = plain(base)
        return self._bases[choices]

    def _checked_value(self, choices: tuple[str, ...], key: str, value: Plain) -> Plain:
        """``value`` as the schema has it."""
        seen = (choices, key, repr(value))
        if seen not in self._checked:
            checked = OmegaConf.select(self._set_in_copy(choices, key, value), key)
            if OmegaConf.is_config(checked):
                checked = OmegaConf.to_container(checked, resolve=True, enum_to_str=True)
            self._checked[seen] = checked
        return self._checked[seen]

    def _set_in_copy(self, choices: tuple[str, ...], key: str, value: Plain) -> DictConfig:
        """The base with ``key`` set; the copy serves the next value of ``key`` too, unless values could merge."""
        if isinstance(value, (dict, list)):
            return _updated(self._bases[choices], {key: value})
        if (choices, key) not in self._scratch:
            self._scratch[choices, key] = copy.deepcopy(self._bases[choices])
        _update(self._scratch[choices, key], key, value)
        return self._scratch[choices, key]


def plain(config: DictConfig) -> Composed:
    """A composed configuration as plain data, everything resolved; a key without a value stays ``"???"``."""
    container = cast(Composed, OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    composed = {key: value for key, value in container.items() if key != "hydra"}
    refuse_target(composed)
    return composed


def refuse_target(value: Plain, path: str = "") -> None:
    """Raises UserError where a configuration names something for Hydra to call: no group of ours does."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key == TARGET:
                raise UserError(f"{path}{key}", item, "no such key: a configuration names no code")
            refuse_target(item, f"{path}{key}.")
    elif isinstance(value, list):
        for item in value:
            refuse_target(item, path)


def not_null(key: str) -> str:
    """What is wrong with null for a key that must have a value, as an error says it."""
    return f"{_NOT_NULL}; write 'null' in quotes for the word" if key in text_keys() else _NOT_NULL


def _choice(group: str, value: Plain) -> str:
    """The override that chooses a file of a group."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool) or not _NAME.fullmatch(str(value)):
        raise UserError(group, value, f"the name of a file of conf/{group}, such as {', '.join(choices_of(group))}")
    return as_written(f"{group}={value}")


def _updated(base: DictConfig, values: Point) -> DictConfig:
    config = copy.deepcopy(base)
    for key, value in values.items():
        _update(config, key, value)
    return config


def _update(config: DictConfig, key: str, value: Plain) -> None:
    if not key_exists(config, key):
        group, _, name = key.rpartition(".")
        if group in CHOSEN_GROUPS:
            chosen = CHOSEN_GROUPS[group].kind({"name": config[group].name})
            if error := key_of_another(chosen, name, value):
                raise error
        raise UserError(key, value, f"no such key: must be one of the keys {', '.join(siblings(config, key))}")
    try:
        OmegaConf.update(config, key, value)
    except OmegaConfBaseException as error:
        if value is None:
            raise UserError(key, "null", not_null(key)) from error
        raise UserError(key, value, f"of the type of this key ({str(error).splitlines()[0]})") from error


def key_exists(config: DictConfig, key: str) -> bool:
    """Whether the configuration has ``key``, with a value or without."""
    return key.rpartition(".")[2] in siblings(config, key)


def siblings(config: DictConfig, key: str) -> list[str]:
    """The keys in the group of ``key``; those of the nearest existing parent where its own does not exist."""
    parent = key.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else config
    if isinstance(node, DictConfig):
        return [str(name) for name in node if name != "hydra"]
    return siblings(config, parent)


def _has_interpolation(value: object) -> bool:
    if isinstance(value, dict):
        return any(_has_interpolation(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_interpolation(item) for item in value)
    return isinstance(value, str) and "${" in value


def with_value(config: Composed, path: list[str], value: Plain) -> Composed:
    """A copy of ``config`` with another value at ``path``, sharing all that is not on it."""
    name, *deeper = path
    group = config.get(name)
    return {**config, name: with_value(group if isinstance(group, dict) else {}, deeper, value) if deeper else value}
