"""Groups with one dataclass per ``name``: each launcher and each tracker has keys of its own.

Hydra composes such a group with the keys of all choices, each at its default unless it is set. Read back, the group is
the dataclass of the choice that it names. In a command, a key of another choice that was set is refused; files from
before each choice had its own keys have them all, so there such keys are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, get_type_hints

from trainlarge.config.group import Group, Plain, as_plain
from trainlarge.config.identity import field_names, once_per_class
from trainlarge.errors import UserError


@dataclass(frozen=True)
class ChosenGroup(Group):
    """A group whose ``name`` says which subclass describes it."""

    name: str = ""
    """Which one."""

    @classmethod
    def by_name(cls) -> Mapping[str, type[ChosenGroup]]:
        """The dataclass of each choice by its name."""
        raise NotImplementedError

    @classmethod
    def kind(cls, data: Mapping[str, Plain]) -> type[ChosenGroup]:
        """The dataclass of the choice that plain data name.

        Raises:
            UserError: for a name that there is not.
        """
        name, known = data.get("name", cls.name), cls.by_name()
        if name not in known:
            raise UserError(f"{cls.key}.name", name, f"one of {', '.join(known)}")
        return known[str(name)]

    @classmethod
    def own(cls, data: Mapping[str, Plain]) -> dict[str, Plain]:
        """Plain data without keys that only other choices have."""
        others = cls.keys_of_others()
        return {key: value for key, value in data.items() if key not in others}

    @classmethod
    def keys_of_others(cls) -> dict[str, tuple[str, Plain]]:
        """Key that only other choices have -> the name of one that has it, and its default there."""
        return _keys_of_others(cls)


def refuse_keys_of_others(kind: type, data: Mapping[str, Any]) -> None:
    """Refuse keys of a command that mean nothing with what it chooses, unless they have their default.

    Args:
        kind: the dataclass of a whole configuration.
        data: the composed configuration.

    Raises:
        UserError: naming the key and the choice that it is for.
    """
    for key, group in _chosen_groups(kind).items():
        given = data.get(key, {})
        for name, (owner, default) in group.kind(given).keys_of_others().items():
            if given.get(name, default) != default:
                allowed = f"must not be set with {key}={given['name']}, only with {key}={owner}"
                raise UserError(f"{key}.{name}", given[name], allowed)


@once_per_class
def _chosen_groups(kind: type) -> dict[str, type[ChosenGroup]]:
    hints = get_type_hints(kind)
    return {key: hint for key, hint in hints.items() if isinstance(hint, type) and issubclass(hint, ChosenGroup)}


@once_per_class
def _keys_of_others(kind: type) -> dict[str, tuple[str, Plain]]:
    own = field_names(kind)
    found: dict[str, tuple[str, Plain]] = {}
    for name, other in kind.by_name().items() if issubclass(kind, ChosenGroup) else ():
        for item in fields(other):
            if item.name not in own:
                found.setdefault(item.name, (name, default_of(item)))
    return found


def default_of(item: Field[Any]) -> Plain:
    """The default of a field that has one, as plain data."""
    return as_plain(item.default if item.default_factory is MISSING else item.default_factory())
