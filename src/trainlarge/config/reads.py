"""Which keys of a group are read: said at the field, for those that count only with some values of other keys.

horizon: str | None = field(default=None, metadata=read_with(name="fixed"))

A key that is set and that nobody reads is refused: what a user asked for would be lost without a word, and where the
key is part of an id, one result would have two ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields

from trainlarge.config.identity import once_per_class
from trainlarge.errors import UserError, shown

_READ_WITH = "read_with"


@dataclass(frozen=True)
class Unread:
    """A key that is set and not read."""

    name: str
    """The key within its group."""
    value: object
    """What it is set to."""
    default: object
    """What it would have to be."""
    needs: str
    """Because of what it is not read, and what would change that: ``with schedule.name=cooldown``."""

    def error(self, group: str) -> UserError:
        """What a user is told; ``group`` is empty for a key outside of groups."""
        key = f"{group}.{self.name}" if group else self.name
        return UserError(key, self.value, f"{shown(self.default)} {self.needs}")


def read_with(**others: object) -> Mapping[str, object]:
    """Metadata of a field that is read only where other fields of its group have these values.

    Args:
        others: name of another field -> its value, or a tuple of several.
    """
    return {_READ_WITH: {name: value if isinstance(value, tuple) else (value,) for name, value in others.items()}}


def unread(kind: type, values: Mapping[str, object], group: str) -> Iterator[Unread]:
    """The keys of a group that are set to another value than their default, and are not read.

    Args:
        kind: the dataclass of the group.
        values: name of a field -> its value; a field that is absent has its default.
        group: the key of the group.
    """
    for name, (default, others) in _conditions(kind).items():
        if values.get(name, default) == default:
            continue
        for other, needed in others.items():
            if (value := values.get(other, _defaults(kind).get(other))) not in needed:
                only = " or ".join(shown(one) for one in needed)
                needs = f"with {group}.{other}={shown(value)}: it is read only with {group}.{other}={only}"
                yield Unread(name, values[name], default, needs)
                break


@once_per_class
def _conditions(kind: type) -> dict[str, tuple[object, dict[str, tuple[object, ...]]]]:
    """Field -> its default, and which other fields must have which values for it to be read."""
    conditional = [item for item in fields(kind) if _READ_WITH in item.metadata]
    return {item.name: (_defaults(kind)[item.name], item.metadata[_READ_WITH]) for item in conditional}


@once_per_class
def _defaults(kind: type) -> dict[str, object]:
    return {item.name: item.default for item in fields(kind) if item.default is not MISSING}
