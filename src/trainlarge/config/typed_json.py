"""Dataclasses that are read from plain JSON data, with names and types checked, and written as such data.

For the small files of a study and the parts of a record. A key that is missing has the field's default. A key that the
dataclass does not have is left out: a newer version may have written it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, cast, get_type_hints

from trainlarge.config.group import Plain
from trainlarge.config.identity import once_per_class
from trainlarge.config.readers import Reader, Readers, taken_as_they_are

T = TypeVar("T")


class JsonTypeError(ValueError):
    """JSON data that are not what the dataclass describes. The text names the key, its value and what is allowed."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed
        shown = repr(value)
        super().__init__(f"{key}={shown if len(shown) <= 60 else shown[:57] + '...'} is not valid: must be {allowed}")

    def __reduce__(self) -> tuple[type[JsonTypeError], tuple[str, object, str]]:
        return type(self), (self.key, self.value, self.allowed)


def read(kind: type[T], data: object, key: str = "") -> T:
    """The dataclass ``kind`` with the values of ``data``.

    Field types are those of ``Readers.of``.

    Args:
        kind: a dataclass.
        data: what JSON gives: a mapping from keys to values.
        key: where ``data`` is in its file, for errors; empty for the whole file.

    Raises:
        JsonTypeError: a ValueError, for a value of another type, or a key that is missing and has no default.
    """
    return cast(T, _dataclass_reader(kind)(data, key))


def plain(instance: object) -> dict[str, Plain]:
    """A dataclass instance as plain data, one key per field, which ``read`` turns back into an equal instance."""
    return {item.name: _plain(getattr(instance, item.name)) for item in fields(cast(Any, instance))}


def _plain(value: object) -> Plain:
    if is_dataclass(value):
        return plain(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return cast(Plain, value)


@once_per_class
def _dataclass_reader(kind: type) -> Reader:
    hints = get_type_hints(kind)
    items = [item for item in fields(kind) if item.init]
    readers = [(item.name, taken_as_they_are(hints[item.name]), _READERS.of(hints[item.name])) for item in items]
    needed = [item.name for item in items if item.default is MISSING and item.default_factory is MISSING]

    def read_dataclass(data: object, key: str) -> object:
        if not isinstance(data, Mapping):
            raise JsonTypeError(key or "content", data, "a mapping from keys to values")
        prefix = f"{key}." if key else ""
        for name in needed:
            if name not in data:
                raise JsonTypeError(prefix + name, None, "there")
        values = {}
        for name, scalars, reader in readers:
            if name in data:
                value = data[name]
                values[name] = value if type(value) in scalars else reader(value, prefix + name)
        return kind(**values)

    return read_dataclass


_READERS = Readers(JsonTypeError, _dataclass_reader)
