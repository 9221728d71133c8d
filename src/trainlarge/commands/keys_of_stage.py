"""The groups, choices and keys of a stage's command line, as help and completion show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import get_type_hints

from trainlarge.config.choices import chosen_groups
from trainlarge.config.group import groups_of
from trainlarge.config.identity import stand_ins
from trainlarge.config.method import METHODS
from trainlarge.config.recipe import Recipe
from trainlarge.config.schema import CONFIGS
from trainlarge.config.share import choices_of, share_folder
from trainlarge.config.sweep import SweepConfig


def choices_of_groups(stage: str) -> dict[str, list[str]]:
    """Group of a stage -> the names of what can be chosen for it, both in the order of the alphabet."""
    slots = METHODS if stage == "compress" else {}
    names = {*groups_of(CONFIGS[stage]), *slots}
    folders = [path for path in sorted((share_folder() / "conf").iterdir()) if path.name in names]
    return {folder.name: choices_of(folder.name) for folder in folders}


def keys_of(stage: str, chosen: Mapping[str, str]) -> dict[str, object]:
    """Key of a stage -> its type, without the names of groups and what is filled in.

    Args:
        chosen: group -> its choice; of another group that has keys for each choice, all are given.
    """
    config = CONFIGS[stage]
    groups: dict[str, Iterable[type]] = {key: [kind] for key, kind in groups_of(config).items()}
    several = {key: kind.by_name() for key, kind in chosen_groups(config).items()}
    choices: dict[str, Mapping[str, type]] = {**several, **(METHODS if stage == "compress" else {})}
    groups |= {key: _of_choice(kinds, chosen.get(key)) for key, kinds in choices.items()}
    own = {name: hint for name, hint in _fields(config).items() if name not in groups and hint is not Recipe}
    nested = {
        f"{key}.{name}": hint for key, kinds in groups.items() for kind in kinds for name, hint in _fields(kind).items()
    }
    return {**own, **nested, **{f"sweep.{name}": hint for name, hint in _fields(SweepConfig).items()}}


def _of_choice(kinds: Mapping[str, type], name: str | None) -> Iterable[type]:
    return [kinds[name]] if name and name in kinds else kinds.values()


def _fields(kind: type) -> dict[str, object]:
    hints, filled_in = get_type_hints(kind), stand_ins(kind)
    return {item.name: hints[item.name] for item in fields(kind) if item.name not in filled_in and item.name != "name"}
