"""Writing so that a reader sees the old file or the new one, never a part, also after a crash or on a full disk."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; flushed and renamed to ``path`` if the block ends well, else removed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file ``path`` by ``text``."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace the file ``path`` by ``value`` as indented JSON (no NaN, no infinity)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def create_exclusively(path: Path, text: str) -> bool:
    """Create ``path`` holding ``text``; False if it exists. Atomic on network folders too (a hard link)."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a torn last line, as a crash leaves it, is dropped."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line] + _torn_or_whole(lines[-1])


def _torn_or_whole(line: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line)] if line else []
    except json.JSONDecodeError:
        return []


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
