"""Groups with one dataclass per ``name``: tasks, launchers and trackers have keys of their own.

Hydra composes such a group with the keys of the choice alone: ``conf/<group>/<name>.yaml`` takes them from
``/schema/<group>/<name>``, which is registered for every dataclass of ``by_name``. Read back, the group is the
dataclass of the choice that it names. A key of another choice is refused in a command. Files from before each choice
had its own keys have them all, so there such keys are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import ClassVar

from trainlarge.config.group import Group, Plain, as_plain, groups_of
from trainlarge.config.identity import field_names, once_per_class
from trainlarge.errors import UnknownChoiceError, UserError


@dataclass(frozen=True)
class ChosenGroup(Group, ABC):
    """A group whose ``name`` says which subclass describes it."""

    name: str = ""
    """Which one."""

    ignores: ClassVar[frozenset[str]] = frozenset()
    """Keys outside of the group that nobody reads with this choice, in full."""

    @classmethod
    @abstractmethod
    def by_name(cls) -> Mapping[str, type[ChosenGroup]]:
        """The dataclass of each choice by its name."""

    @classmethod
    def kind(cls, data: Mapping[str, Plain]) -> type[ChosenGroup]:
        """The dataclass of the choice that plain data name.

        Raises:
            UnknownChoiceError: for a name that there is not.
        """
        name, choices = data.get("name", cls.name), cls.by_name()
        if name not in choices:
            raise UnknownChoiceError(f"{cls.key}.name", name, f"one of {', '.join(choices)}")
        return choices[str(name)]

    @classmethod
    def known(cls, data: Mapping[str, Plain]) -> dict[str, Plain]:
        """Plain data without keys that only other choices have."""
        others = _keys_of_others(cls)
        return {key: value for key, value in data.items() if key not in others}


@once_per_class
def chosen_groups(kind: type) -> dict[str, type[ChosenGroup]]:
    """Key -> group, for the groups of a whole configuration that have one dataclass per name."""
    return {key: group for key, group in groups_of(kind).items() if issubclass(group, ChosenGroup)}


def refuse_keys_of_others(kind: type, data: Mapping[str, Plain]) -> None:
    """Refuse keys of a command that mean nothing with what it chooses, unless they have their default.

    Args:
        kind: the dataclass of a whole configuration.
        data: the composed configuration.

    Raises:
        UserError: naming the key and the choice that it is for.
    """
    for key, group in chosen_groups(kind).items():
        given = data.get(key)
        if not isinstance(given, dict):
            continue
        chosen = group.kind(given)
        for name, value in given.items():
            error = key_of_another(chosen, name, value)
            if error and value != _keys_of_others(chosen)[name][1]:
                raise error


def key_of_another(kind: type[ChosenGroup], name: str, value: object) -> UserError | None:
    """The error of a key that ``kind`` does not have and another choice has; None for a key that none has."""
    if name not in _keys_of_others(kind):
        return None
    owner, _ = _keys_of_others(kind)[name]
    allowed = f"must not be set with {kind.key}={kind.name}, only with {kind.key}={owner}"
    return UserError(f"{kind.key}.{name}", value, allowed)


@once_per_class
def _keys_of_others(kind: type[ChosenGroup]) -> dict[str, tuple[str, Plain]]:
    """Key that only other choices have -> the name of one that has it, and its default there."""
    keys: dict[str, tuple[str, Plain]] = {}
    for name, other in kind.by_name().items():
        for item in fields(other):
            if item.name not in field_names(kind):
                keys.setdefault(item.name, (name, default_of(item)))
    return keys


def default_of(item: Field[object]) -> Plain:
    """The default of a field that has one, as plain data."""
    return as_plain(item.default if item.default_factory is MISSING else item.default_factory())
