"""The log of a job: all that its process prints, and the messages of this program with their time and cell.

2026-11-27 16:03:51 5f0c2a9b31d4 out of memory with 64 rows at once; continuing with 32
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from trainlarge.errors import UserError
from trainlarge.sweep.files import open_to_append
from trainlarge.sweep.store import CellFolder

_FORMAT = "%(asctime)s %(cell)s %(message)s"
_TIME = "%Y-%m-%d %H:%M:%S"


def show_messages(cell: str) -> None:
    """Write the messages of this program to standard output from now on, in the format of a job's log.

    Args:
        cell: what a message names as its cell, unless it was logged with ``extra={"cell": ...}``.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(_FORMAT, _TIME, defaults={"cell": cell}))
    logger = logging.getLogger("trainlarge")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def log_to_cells(folders: list[CellFolder]) -> None:
    """Append all that this process prints and logs to the first cell's log; the logs of the others link to it.

    Raises:
        UserError: a log cannot be written.
    """
    first, *others = folders
    try:
        if first.log.is_symlink():
            first.log.unlink()
        for other in others:
            _link_log(other, Path("..") / first.id / first.log.name)
        log_to_file(first.log, first.id)
    except OSError as error:
        raise UserError(str(error.filename or first.log), error.strerror, "a log that can be written") from error


def log_to_file(path: Path, cell: str) -> None:
    """Append all that this process prints and logs to ``path``; ``cell`` as in ``show_messages``."""
    descriptor = open_to_append(path)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    show_messages(cell)


def _link_log(folder: CellFolder, target: Path) -> None:
    # A log of an earlier job stays: other cells of that job link to it.
    if folder.log.exists() and not folder.log.is_symlink():
        _point_to(folder, target)
        return
    folder.log.unlink(missing_ok=True)
    try:
        folder.log.symlink_to(target)
    except OSError:
        # A file system without links, such as exFAT.
        _point_to(folder, target)


def _point_to(folder: CellFolder, target: Path) -> None:
    with os.fdopen(open_to_append(folder.log), "a", encoding="utf-8") as file:
        file.write(f"{time.strftime(_TIME)} {folder.id} continued in {target}\n")
