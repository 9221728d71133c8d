"""Memory of this process: what it may use, and keeping what a training step frees for the next step."""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3) in the GNU C library."""

_KEPT_BYTES = 1 << 30
_OLD_LIMIT = 1 << 25
"""Largest threshold that older versions of the library take."""


def keep_freed_memory() -> bool:
    """Have this process keep freed memory rather than give it back to the system; call before the first step.

    By default the GNU C library returns large freed blocks at once, so that every step of a model on the CPU asks for
    its activations again and the system fills them with zeros page by page: 17 to 33 % of a small model's step. The
    process then stays as large as it once was.

    Returns:
        Whether blocks of up to a gigabyte are kept; other C libraries (macOS, musl) have no such setting.
    """
    try:
        set_parameter = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return False
    if not set_parameter(_MMAP_THRESHOLD, _KEPT_BYTES):
        set_parameter(_TRIM_THRESHOLD, _KEPT_BYTES)
        set_parameter(_MMAP_THRESHOLD, _OLD_LIMIT)
        return False
    return bool(set_parameter(_TRIM_THRESHOLD, _KEPT_BYTES))


def free_memory() -> int:
    """Bytes that this process can still take on the machine or in its control group, whichever has less."""
    return min([psutil.virtual_memory().available, *_left_in_group()])


def _left_in_group(folder: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What the control group (version 2) leaves, as one number; nothing where it has no limit."""
    try:
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):
        return []
    return [max(limit - used, 0)]
