"""Keys of a JSON file, each a dataclass field that states its unit and its meaning: what columns are made from.

A class of such fields is ``Recorded``: what finished cells tell is in ``records.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from types import MappingProxyType, NoneType
from typing import Any, ClassVar, Self, cast

from trainlarge.config import typed_json
from trainlarge.config.group import Plain

UNKNOWN = float("nan")
"""What a number is in a record from before it was recorded."""
_GATHERED = ("scores", "more")
"""Fields whose entries are keys of the JSON data themselves."""
_SCORE_TYPES = (float, int, NoneType)


@dataclass(frozen=True)
class Meaning:
    """What a key of a record means, and the column that it becomes."""

    unit: str
    """Unit of the values; ``text``, ``yes or no``, or ``1`` for a plain number or share. ``loss`` stands for the unit
    of the task's loss."""
    text: str
    """What the value means."""
    column: str | None = None
    """Name of the column; None: that of the key."""
    before: object = None
    """What a record without the value means: one from before the key was added."""
    is_optional: bool = False
    """Whether the key is written only where it has a value."""
    in_table: bool = False
    """Whether the table of recipes in a mirror shows it."""


def key(unit: str, text: str, column: str | None = None, in_table: bool = False) -> Any:
    """A key that every record of today has."""
    return field(metadata={"meaning": Meaning(unit, text, column, in_table=in_table)})


def later(
    unit: str,
    text: str,
    before: object = UNKNOWN,
    is_optional: bool = False,
    in_table: bool = False,
    column: str | None = None,
) -> Any:
    """A key that records from before it was added do not have; ``before`` is what that means."""
    return field(default=None, metadata={"meaning": Meaning(unit, text, column, before, is_optional, in_table)})


def plain(is_optional: bool = False) -> Any:
    """A key that becomes no column."""
    return field(default=None, metadata={"is_optional": is_optional})


def meanings(kind: type[Recorded]) -> dict[str, Meaning]:
    """Key -> what it means, for the fields that become columns."""
    return {item.name: known for item in fields(kind) if (known := meaning(item))}


def meaning(item: Field[object]) -> Meaning | None:
    """What a field means; None where it becomes no column."""
    return cast(Meaning | None, item.metadata.get("meaning"))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Keys that are written as JSON."""

    groups: ClassVar[Mapping[str, type[Recorded]]] = MappingProxyType({})
    """Keys that are records of their own."""

    more: Mapping[str, Plain] = field(default_factory=dict)
    """Keys that no field describes, as a newer version may write them: kept as they are."""

    def to_json(self) -> dict[str, Plain]:
        """Plain data: one key per field, without optional ones that have no value."""
        return {**dict(self._items()), **self.more}

    def _items(self) -> Iterator[tuple[str, Plain]]:
        for item in fields(self):
            value, known = getattr(self, item.name), meaning(item)
            is_optional = known.is_optional if known else bool(item.metadata.get("is_optional"))
            if item.name == "scores":
                yield from value.items()
            elif item.name != "more" and (value is not None or not is_optional):
                yield item.name, value.to_json() if isinstance(value, Recorded) else value

    @classmethod
    def from_json(cls, data: Plain) -> Self:
        """The record that ``to_json`` wrote, or that of another version: keys added later have their defaults.

        Raises:
            ValueError: naming a key that is missing or whose value has another type.
        """
        return typed_json.read(cls, _gathered(cls, data))


def _gathered(kind: type[Recorded], data: Plain) -> object:
    """JSON data with the keys that no field describes under ``scores``, if they can be such, and ``more``."""
    if not isinstance(data, dict):
        return data
    names = {item.name for item in fields(kind)} - {*_GATHERED}
    known: dict[str, object] = {name: value for name, value in data.items() if name in names}
    others = {name: value for name, value in data.items() if name not in names}
    has_scores = any(item.name == "scores" for item in fields(kind))
    scores = {name: value for name, value in others.items() if has_scores and type(value) in _SCORE_TYPES}
    parts = {name: _gathered(group, data[name]) for name, group in kind.groups.items() if name in data}
    more = {name: value for name, value in others.items() if name not in scores}
    return {**known, **parts, "scores": scores, "more": more}
