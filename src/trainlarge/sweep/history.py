"""The commands that were given for a study, so that they can be repeated: ``<study>/commands.jsonl``."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainlarge.config import typed_json
from trainlarge.sweep.files import exact_json, open_to_append, read_bytes

if TYPE_CHECKING:
    from trainlarge.sweep.store import Study


@dataclass(frozen=True)
class GivenCommand:
    """One row of the file."""

    time: float
    """When it was given, in seconds since 1970."""
    stage: str
    """The stage whose cells it ran."""
    command: str
    """The command line."""
    folder: str = ""
    """The working directory."""


def remember_command(study: Study, stage: str, command: str) -> None:
    """Append a command line, unless it is the last one of ``stage`` already."""
    if last_commands(study).get(stage) == command:
        return
    row = typed_json.plain(GivenCommand(time.time(), stage, command, str(Path.cwd())))
    path = _path(study)
    # A row that a crash has torn must not take the next one with it.
    is_torn = path.is_file() and read_bytes(path)[-1:] not in (b"", b"\n")
    line = ("\n" if is_torn else "") + json.dumps(row) + "\n"
    descriptor = open_to_append(path)
    try:
        # One write: rows of two commands do not mix.
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def last_commands(study: Study) -> dict[str, str]:
    """Stage -> the last command that was given for it."""
    try:
        lines = read_bytes(_path(study)).splitlines()
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return {}
    return {row.stage: row.command for line in lines if (row := _row(line))}


def _row(line: bytes) -> GivenCommand | None:
    """The row of a line; None for one that a crash or a full disk has torn."""
    try:
        return typed_json.read(GivenCommand, exact_json(line))
    except ValueError:
        return None


def _path(study: Study) -> Path:
    return study.path / "commands.jsonl"
