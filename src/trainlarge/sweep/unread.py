"""Keys of a command that nobody reads: left out of the cells that do not read them, refused where no cell does.

A grid may cross a key with values of another one with which it means nothing: ``prune.scope`` with a sparsity of 0. The
key is then left out of those cells, so that each is one cell whatever the key says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from trainlarge.config.group import Group, Plain, as_plain, groups_of
from trainlarge.config.plain import from_plain
from trainlarge.config.reads import Unread
from trainlarge.config.recipe import SLOTS, Recipe, keys_read
from trainlarge.config.schema import CONFIGS, StageConfig
from trainlarge.sweep.compose import Composed


class KeysRead:
    """Which keys of the cells of one command are read."""

    def __init__(self, stage: str) -> None:
        groups = groups_of(CONFIGS[stage])
        self._kinds = {key: kind for key, kind in groups.items() if key not in ("launcher", "tracking", "impl", "task")}
        self._seen: dict[int, tuple[Plain, Mapping[str, Plain]]] = {}
        self._read: set[tuple[str, str, str]] = set()
        self._unread: dict[tuple[str, str, str], Unread] = {}

    def without_unread(self, composed: Composed) -> Composed:
        """A configuration without the keys that it sets and that nobody reads; both are kept in mind."""
        return {key: self._kept(key, group) if isinstance(group, dict) else group for key, group in composed.items()}

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
            self._read |= {(key, name, repr(value)) for name, value in kept.items()}
            self._seen[id(group)] = group, kept
        return cast(Plain, self._seen[id(group)][1])

    def _read_and_unread(self, key: str, group: dict[str, Plain]) -> tuple[Mapping[str, Plain], tuple[Unread, ...]]:
        if key in SLOTS:
            return keys_read(key, group)
        if key not in self._kinds:
            return group, ()
        lost = cast(Group, from_plain(self._kinds[key], group, key)).unread
        return {**group, **{item.name: as_plain(item.default) for item in lost}} if lost else group, lost


def refuse_unread(config: StageConfig) -> None:
    """Refuse a key of one cell that nobody reads, as Python code may set it.

    Raises:
        UserError: naming the key.
    """
    for key, part in vars(config).items():
        if isinstance(part, Group) and part.unread:
            raise part.unread[0].error(key)
        for method in part.steps if isinstance(part, Recipe) else ():
            for lost in method.unread:
                raise lost.error(method.slot)
