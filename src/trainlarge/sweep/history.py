"""The commands that were given for a study, so that they can be repeated: ``<study>/commands.jsonl``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence, Set
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
    cells: tuple[str, ...] = ()
    """Ids of the cells that it had to run; empty in rows of before they were kept."""


def remember_command(study: Study, stage: str, command: str, cells: Sequence[str] = ()) -> None:
    """Append a command line, unless it is the last one of ``stage`` already and had these cells to run.

    Args:
        cells: ids of the cells that it has to run.
    """
    last = next((row for row in reversed(_rows(study)) if row.stage == stage), None)
    if last and last.command == command and set(cells) <= set(last.cells):
        return
    row = typed_json.plain(GivenCommand(time.time(), stage, command, str(Path.cwd()), tuple(cells)))
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


def commands_of(study: Study, stage: str, cells: Set[str]) -> tuple[list[str], Set[str]]:
    """The last commands that had cells of a stage to run, and the cells that no command had.

    Args:
        cells: ids of cells that are not done.
    """
    commands: dict[str, None] = {}
    left = set(cells)
    for row in reversed(_rows(study)):
        if row.stage != stage or not left:
            continue
        if not row.cells or left & set(row.cells):
            commands[row.command] = None
            # A row that does not say which cells it had may have had any.
            left -= set(row.cells) if row.cells else cells
    return list(commands), left


def _rows(study: Study) -> list[GivenCommand]:
    try:
        lines = read_bytes(_path(study)).splitlines()
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return []
    return [row for line in lines if (row := _row(line))]


def _row(line: bytes) -> GivenCommand | None:
    """The row of a line; None for one that a crash or a full disk has torn."""
    try:
        return typed_json.read(GivenCommand, exact_json(line))
    except ValueError:
        return None


def _path(study: Study) -> Path:
    return study.path / "commands.jsonl"
