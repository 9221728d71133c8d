"""Notes: what the packed file says about one tensor in addition to its parts, as JSON.

A file may claim anything, so each value is checked where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trainlarge.compression.stored.container import DTYPES

Note = dict[str, object]
"""JSON data with a key ``encoding``, and whatever that encoding needs to decode."""


def integer(note: Mapping[str, object], key: str) -> int:
    """A whole number. Raises KeyError where it is missing, and ValueError for anything else."""
    value = note[key]
    if type(value) is not int:
        raise ValueError(f"{key} {value!r}")
    return value


def optional_integer(note: Mapping[str, object], key: str) -> int | None:
    """As ``integer``; None where it is missing or null."""
    return None if note.get(key) is None else integer(note, key)


def shape_in(note: Mapping[str, object]) -> tuple[int, ...]:
    """The shape of the tensor. Raises as ``integer`` does."""
    shape = note["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return tuple(shape)


def dtype_in(note: Mapping[str, object]) -> torch.dtype:
    """The floating data type of the tensor. Raises as ``integer`` does."""
    name = note["dtype"]
    if name not in _FLOATS:
        raise ValueError(f"data type {name}")
    return _FLOATS[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The inverse of ``dtype_in``, such as ``float32``."""
    return str(dtype).removeprefix("torch.")


def note_in(note: Mapping[str, object], key: str) -> Note:
    """A note within a note. Raises as ``integer`` does."""
    inner = note[key]
    if not isinstance(inner, dict):
        raise ValueError(f"{key} {inner!r}")
    return inner


_FLOATS: Mapping[object, torch.dtype] = {dtype_name(dtype): dtype for dtype in DTYPES if dtype.is_floating_point}
