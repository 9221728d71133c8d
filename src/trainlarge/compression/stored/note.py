"""Notes: what the packed file says about one tensor in addition to its parts, as JSON.

A file may claim anything, so each value is checked where it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from trainlarge.compression.stored.container import DTYPES
from trainlarge.config.group import Plain
from trainlarge.config.typed_json import JsonTypeError

Note = dict[str, Plain]
"""JSON data with a key ``encoding``, and whatever that encoding needs to decode."""
BOTH, SUMMANDS = "both", ("body", "rest")
"""The encoding that is made of two others, and the keys of their notes in its own."""


def integer(note: Mapping[str, Plain], key: str) -> int:
    """A whole number from 0 up. Raises JsonTypeError for anything else, and where it is missing."""
    value = note.get(key)
    if type(value) is not int or value < 0:
        raise JsonTypeError(key, value, "a whole number from 0 up")
    return value


def optional_integer(note: Mapping[str, Plain], key: str) -> int | None:
    """As ``integer``; None where it is missing or null."""
    return None if note.get(key) is None else integer(note, key)


def shape_in(note: Mapping[str, Plain]) -> tuple[int, ...]:
    """The shape of the tensor. Raises as ``integer`` does."""
    given = note.get("shape")
    sizes = given if isinstance(given, list) else [None]
    shape = tuple(size for size in sizes if type(size) is int and size >= 0)
    if len(shape) != len(sizes):
        raise JsonTypeError("shape", given, "a list of whole numbers from 0 up")
    return shape


def dtype_in(note: Mapping[str, Plain]) -> torch.dtype:
    """The floating data type of the tensor. Raises as ``integer`` does."""
    name = note.get("dtype")
    if not isinstance(name, str) or name not in _FLOATS:
        raise JsonTypeError("dtype", name, f"one of {', '.join(_FLOATS)}")
    return _FLOATS[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The inverse of ``dtype_in``, such as ``float32``."""
    return str(dtype).removeprefix("torch.")


def encoding_in(note: Mapping[str, Plain]) -> str:
    """The name of the encoding. Raises as ``integer`` does."""
    name = note.get("encoding")
    if not isinstance(name, str):
        raise JsonTypeError("encoding", name, "text")
    return name


@contextmanager
def keys_below(key: str) -> Iterator[None]:
    """Errors in this block name keys below ``key``."""
    try:
        yield
    except JsonTypeError as error:
        raise JsonTypeError(f"{key}.{error.key}", error.value, error.allowed) from error


def note_in(note: Mapping[str, Plain], key: str) -> Note:
    """A note within a note. Raises as ``integer`` does."""
    inner = note.get(key)
    if not isinstance(inner, dict):
        raise JsonTypeError(key, inner, "a mapping from keys to values")
    return inner


_FLOATS: Mapping[str, torch.dtype] = {dtype_name(dtype): dtype for dtype in DTYPES if dtype.is_floating_point}
