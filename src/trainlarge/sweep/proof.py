"""Checks of a finished cell's files against the SHA-256 digests in its record.

Everything in a cell's folder when its record is written is a result, but for what the engine itself changes
later. ``config.yaml`` is proven by the cell's id, and ``record.json`` by its seal (:mod:`trainlarge.sweep.sealed`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from trainlarge.config.group import Plain
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
    digest_by_path: dict[str, str] = {}
    for folder, inner, names in os.walk(cell):
        inner[:] = sorted(name for name in inner if name not in _NO_RESULT_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            relative = path.relative_to(cell).as_posix()
            if relative not in _NO_RESULTS and not name.startswith("."):
                digest_by_path[relative] = file_digest(path)
    return digest_by_path


def digests(record: Mapping[str, Plain]) -> Mapping[str, Plain]:
    """What ``result_digests`` gave when a record was written; nothing for one of an older version."""
    files = record.get(FILES)
    return files if isinstance(files, dict) else {}


def damage(cell: Path, files: Mapping[str, Plain], below: str = "") -> dict[str, str]:
    """Files of a cell that are not what its record says, each with what is wrong with it.

    Args:
        cell: folder of the cell.
        files: path of each file in the folder -> its SHA-256.
        below: only files whose path starts like this.
    """
    states = {name: _wrong(cell / name, digest) for name, digest in files.items() if name.startswith(below)}
    return {name: wrong for name, wrong in states.items() if wrong}


def _wrong(path: Path, digest: Plain) -> str:
    try:
        return "" if file_digest(path) == digest else "damaged"
    except FileNotFoundError:
        return "gone"
    except OSError as error:
        return str(error.strerror or error)
