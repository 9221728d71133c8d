"""Folders of prepared data: built once for all processes, complete or absent, and built again when damaged."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.files import file_lock, remove

log = logging.getLogger(__name__)

LOCK_SECONDS = 4 * 3600.0
"""How long to wait for another process that builds the same data."""
T = TypeVar("T")


class DamagedDataError(UserError):
    """A folder of prepared data is not as it was written."""


@dataclass(frozen=True)
class FileDigest:
    """What is kept of a file."""

    sha256: str | None = None
    """Its SHA-256, 64 hex digits; None in data of an older version."""


NOT_KEPT = FileDigest()
"""Of a file from before digests were kept, or that is not there."""


def check_digest(path: Path, sha256: str | None) -> None:
    """Compare a file with the digest that was kept of it; with None, none was.

    Raises:
        ValueError: it is another one.
    """
    if sha256 and file_digest(path) != sha256:
        raise ValueError(f"{path.name} is not as it was written")


def kept(folder: Path, load: Callable[[Path], T], build: Callable[[Path], None]) -> T:
    """What ``load`` makes of ``folder``; where that is not there or damaged, ``build`` fills it first.

    Any number of processes may call it at the same time: one builds, the others wait for it. A builder that dies
    leaves nothing that is taken for prepared data.

    Raises:
        UserError: from ``build``.
        filelock.Timeout: another process has been building the same data for hours.
    """
    whole = _loaded(folder, load)
    if whole is not None:
        return whole
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f"{folder.name}.lock"), LOCK_SECONDS):
        whole = _loaded(folder, load)
        if whole is None:
            _build(folder, build)
            whole = load(folder)
    return whole


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Raise DamagedDataError for what goes wrong while the files of ``folder`` are read inside the block."""
    try:
        yield
    except (OSError, ValueError, LookupError) as error:
        allowed = f"a whole folder of prepared data ({error}); remove this one to have it built again"
        raise DamagedDataError("data", folder, allowed) from error


def _loaded(folder: Path, load: Callable[[Path], T]) -> T | None:
    """What is in ``folder`` if it is complete; None where it is to be built."""
    if not folder.is_dir():
        return None
    try:
        return load(folder)
    except DamagedDataError as error:
        log.warning("prepared data is damaged and is built again: %s", error.allowed)
        return None


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    try:
        with _published(folder) as partial:
            build(partial)
    except UserError as error:
        damaged = f" ({folder}, which was prepared from it, is damaged)" if folder.is_dir() else ""
        raise UserError(error.key, error.value, f"{error.allowed}{damaged}") from error


@contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """An empty folder next to ``folder`` that takes its name in one step if the block ends well.

    The caller holds the lock, so whatever has the temporary name is the rest of a builder that died.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    remove(partial)
    partial.mkdir()
    damaged = folder.with_name(f".{folder.name}.damaged")
    try:
        yield partial
        if folder.exists():
            remove(damaged)
            folder.rename(damaged)
        partial.rename(folder)
        remove(damaged)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
