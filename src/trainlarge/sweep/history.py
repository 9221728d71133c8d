"""The commands that were given for a study, so that they can be repeated: ``<study>/commands.jsonl``."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlarge.sweep.files import open_to_append

if TYPE_CHECKING:
    from trainlarge.sweep.store import Study


def remember_command(study: Study, stage: str, command: str) -> None:
    """Append a command line, unless it is the last one of ``stage`` already."""
    if last_commands(study).get(stage) == command:
        return
    row = {"time": time.time(), "stage": stage, "command": command, "folder": str(Path.cwd())}
    # A row that a crash has torn must not take the next one with it.
    line = f"{'' if _ends_whole(study) else chr(10)}{json.dumps(row)}\n".encode()
    descriptor = open_to_append(_path(study))
    try:
        # One write: rows of two commands do not mix.
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def last_commands(study: Study) -> dict[str, str]:
    """Stage -> the last command that was given for it."""
    return {row["stage"]: row["command"] for row in _rows(study)}


def _ends_whole(study: Study) -> bool:
    path = _path(study)
    return not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")


def _rows(study: Study) -> list[dict[str, Any]]:
    try:
        lines = _path(study).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [row for line in lines if (row := _row(line))]


def _row(line: str) -> dict[str, Any] | None:
    """The row of a line; None for one that a crash or a full disk has torn."""
    try:
        row = json.loads(line)
        return row if isinstance(row["stage"], str) and isinstance(row["command"], str) else None
    except (ValueError, TypeError, KeyError):
        return None


def _path(study: Study) -> Path:
    return study.path / "commands.jsonl"
