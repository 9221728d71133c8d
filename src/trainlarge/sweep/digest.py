"""Content hashes of files, each file read once per process as long as it does not change."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

Stamp = tuple[str, int, int, int, int]
"""Path, inode, size in bytes, times of modification and of status change in nanoseconds: equal stamps mean an unchanged
file. A file that is replaced within one tick of the clock by one of its size has another inode."""


def stamp(path: Path) -> Stamp:
    """Stamp of the file at ``path``; one ``stat``, no read.

    Raises:
        OSError: the file cannot be reached.
    """
    state = path.stat()
    return str(path), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes as 64 hex digits, streamed, and kept until the file's stamp changes.

    Raises:
        OSError: the file cannot be read.
    """
    return _stamped_digest(stamp(path))


@lru_cache(maxsize=65536)
def _stamped_digest(file_stamp: Stamp) -> str:
    with Path(file_stamp[0]).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
