"""Keys of a command that nobody reads: left out of the cells that do not read them, refused where no cell does.

A grid may cross a key with values of another one with which it means nothing: ``prune.scope`` with a sparsity of 0. The
key is then left out of those cells, so that each is one cell whatever the key says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import cast

from trainlarge.config.choices import ChosenGroup, chosen_groups, default_of
from trainlarge.config.group import Group, Plain, as_plain, groups_of
from trainlarge.config.identity import once_per_class
from trainlarge.config.plain import from_plain
from trainlarge.config.reads import Unread
from trainlarge.config.recipe import SLOTS, Recipe, keys_read
from trainlarge.config.schema import CONFIGS, CommonConfig, StageConfig
from trainlarge.sweep.compose import Composed, with_value

Place = tuple[str, str, str]
"""Group (empty for a key outside of groups), key within it, and a value as text."""


class KeysRead:
    """Which keys of the cells of one command are read."""

    def __init__(self, stage: str) -> None:
        self._config = CONFIGS[stage]
        groups = groups_of(self._config)
        self._kinds = {key: kind for key, kind in groups.items() if key not in ("launcher", "tracking", "impl", "task")}
        self._seen: dict[int, tuple[Plain, Mapping[str, Plain]]] = {}
        self._read: set[Place] = set()
        self._unread: dict[Place, Unread] = {}

    def without_unread(self, composed: Composed) -> Composed:
        """A configuration without the keys that it sets and that nobody reads; both are kept in mind."""
        kept = {key: self._kept(key, group) if isinstance(group, dict) else group for key, group in composed.items()}
        return self._without_ignored(kept)

    def refuse_unread(self) -> None:
        """Refuse a value that is set for some cells and that none of them reads.

        Raises:
            UserError: naming its key.
        """
        for place, key in self._unread.items():
            if place not in self._read:
                raise key.error(place[0])

    def _kept(self, key: str, group: dict[str, Plain]) -> Plain:
        # Points share the groups that they do not change, which are in memory as long as these are.
        if id(group) not in self._seen:
            kept, lost = self._read_and_unread(key, group)
            self._unread |= {(key, item.name, repr(group[item.name])): item for item in lost}
            often_ignored = _ignorable(self._config)
            self._read |= {(key, name, repr(kept[name])) for name in kept if f"{key}.{name}" not in often_ignored}
            self._seen[id(group)] = group, kept
        return cast(Plain, self._seen[id(group)][1])

    def _read_and_unread(self, key: str, group: dict[str, Plain]) -> tuple[Mapping[str, Plain], tuple[Unread, ...]]:
        if key in SLOTS:
            return keys_read(key, group)
        if key not in self._kinds:
            return group, ()
        lost = cast(Group, from_plain(self._kinds[key], group, key)).unread
        return {**group, **{item.name: as_plain(item.default) for item in lost}} if lost else group, lost

    def _without_ignored(self, composed: Composed) -> Composed:
        """Without what the stage, or a choice of another group, leaves unread."""
        has_checkpoint = composed.get("checkpoint") is not None
        ignored = _ignored(self._config, _chosen(self._config, composed), has_checkpoint)  # type: ignore[arg-type]
        for key, default in _ignorable(self._config).items():
            group, _, name = key.rpartition(".")
            holder = composed.get(group) if group else composed
            value = holder.get(name, default) if isinstance(holder, dict) else default
            place = group, name, repr(value)
            if key not in ignored:
                self._read.add(place)
            elif value != default:
                self._unread[place] = Unread(name, value, default, ignored[key])
                composed = with_value(composed, key.split("."), default)
        return composed


def refuse_unread(config: StageConfig) -> None:
    """Refuse a key of one cell that nobody reads, as Python code may set it.

    Raises:
        UserError: naming the key.
    """
    for key, part in vars(config).items():
        if isinstance(part, Group) and part.unread:
            raise part.unread[0].error(key)
        for slot, method in part.methods().items() if isinstance(part, Recipe) else ():
            for lost in method.unread if method else ():
                raise lost.error(slot)
    _refuse_ignored(config)


def _refuse_ignored(config: StageConfig) -> None:
    parts = (getattr(config, key) for key in chosen_groups(type(config)))
    chosen = tuple(type(part) for part in parts if part is not None)
    ignored = _ignored(type(config), chosen, config.checkpoint is not None)  # type: ignore[arg-type]
    for key, why in ignored.items():
        group, _, name = key.rpartition(".")
        default = _ignorable(type(config))[key]
        value = getattr(getattr(config, group) if group else config, name, default)
        if value != default:
            raise Unread(name, value, default, why).error(group)


def _chosen(kind: type[CommonConfig], composed: Composed) -> tuple[type[ChosenGroup], ...]:
    """The dataclasses of the choices of a composed configuration."""
    groups = ((kind_of_group, composed.get(key)) for key, kind_of_group in chosen_groups(kind).items())
    return tuple(kind_of_group.kind(group) for kind_of_group, group in groups if isinstance(group, dict))


@lru_cache(maxsize=1024)
def _ignored(kind: type[CommonConfig], chosen: tuple[type[ChosenGroup], ...], has_checkpoint: bool) -> dict[str, str]:
    """Key that nobody reads -> why: ``with launcher=slurm, which does not read it``.

    Args:
        kind: the dataclass of the whole configuration.
        chosen: those of its choices.
        has_checkpoint: whether the model is that of a checkpoint, with all keys of ``arch``.
    """
    stage = next(name for name, config in CONFIGS.items() if config is kind)
    ignored = dict.fromkeys(kind.ignores, f"in the {stage} stage, which does not read it")
    for choice in chosen:
        why = f"with {choice.key}={choice.name}, which does not read it"
        ignored |= dict.fromkeys(choice.ignores & _ignorable(kind).keys(), why)
    return {key: why for key, why in ignored.items() if not (has_checkpoint and key.startswith("arch."))}


@once_per_class
def _ignorable(kind: type[CommonConfig]) -> dict[str, Plain]:
    """The keys of a whole configuration that nobody reads in its stage or with some choice, with their defaults."""
    choices = [choice for group in chosen_groups(kind).values() for choice in group.by_name().values()]
    keys = sorted(kind.ignores.union(*(choice.ignores for choice in choices)))
    holders: dict[str, type] = {"": kind, **groups_of(kind)}
    places = {key: key.rpartition(".")[::2] for key in keys}
    found = {key: (holders[group], name) for key, (group, name) in places.items() if group in holders}
    return {
        key: default_of(next(item for item in fields(holder) if item.name == name))
        for key, (holder, name) in found.items()
    }
