"""Checks of a finished cell's files against the SHA-256 digests in its record.

Everything in a cell's folder when its record is written is a result, but for what the engine itself changes
later. ``config.yaml`` is proven by the cell's id, and ``record.json`` by its seal (:mod:`trainlarge.sweep.sealed`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest

FILES = "files"
"""Key of a record: path of a file in the cell's folder -> SHA-256. Records of older versions do not have it."""
_NO_RESULTS = frozenset({"config.yaml", "status.json", "record.json", "log.txt", "mirror.json"})
_NO_RESULT_FOLDERS = frozenset({"lease"})


class DamagedFileError(UserError):
    """A file of a cell is not as it was written, or is gone."""


def result_digests(cell: Path) -> dict[str, str]:
    """SHA-256 of each result in a cell's folder, by its path there."""
    found: dict[str, str] = {}
    for folder, inner, names in os.walk(cell):
        inner[:] = sorted(name for name in inner if name not in _NO_RESULT_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            relative = path.relative_to(cell).as_posix()
            if relative not in _NO_RESULTS and not name.startswith("."):
                found[relative] = file_digest(path)
    return found


def damage(cell: Path, record: Mapping[str, Any], below: str = "") -> dict[str, str]:
    """Files of a cell that are not what its record says, each with what is wrong with it.

    Args:
        cell: folder of the cell.
        record: its record; one of an older version proves nothing.
        below: only files whose path starts like this.
    """
    files = {name: digest for name, digest in record.get(FILES, {}).items() if name.startswith(below)}
    found = {name: _wrong(cell / name, digest) for name, digest in files.items()}
    return {name: wrong for name, wrong in found.items() if wrong}


def _wrong(path: Path, digest: str) -> str:
    try:
        return "" if file_digest(path) == digest else "damaged"
    except FileNotFoundError:
        return "gone"
    except OSError as error:
        return str(error.strerror or error)
