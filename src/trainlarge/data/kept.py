"""Folders of prepared data: built once for all processes, complete or absent, and built again when damaged."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest
from trainlarge.sweep.files import remove
from trainlarge.sweep.sealed import read_sealed

log = logging.getLogger(__name__)

META, TOKENIZER = "meta.json", "tokenizer.json"
LOCK_SECONDS = 4 * 3600.0
"""How long to wait for another process that builds the same data."""
T = TypeVar("T")


class DamagedDataError(UserError):
    """A folder of prepared data is not as it was written."""


def kept(folder: Path, load: Callable[[Path], T], build: Callable[[Path], None]) -> T:
    """What ``load`` makes of ``folder``; where that is not there or damaged, ``build`` fills it first.

    Any number of processes may call it at the same time: one builds, the others wait for it. A builder that dies
    leaves nothing that is taken for prepared data.

    Raises:
        UserError: from ``build``.
        filelock.Timeout: another process has been building the same data for hours.
    """
    found = _found(folder, load)
    if found is not None:
        return found
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock", timeout=LOCK_SECONDS):
        found = _found(folder, load)
        if found is None:
            _build(folder, build)
            found = load(folder)
    return found


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Raise DamagedDataError for what goes wrong while the files of ``folder`` are read inside the block."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        allowed = f"a whole folder of prepared data ({error}); remove this one to have it built again"
        raise DamagedDataError("data", folder, allowed) from error


def read_meta(folder: Path, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``meta.json``, after a look at the tokenizer.

    Raises:
        ValueError: it does not say what is expected, or the tokenizer is not as it was written.
    """
    meta = read_sealed(folder / META)
    for key, value in expected.items():
        if meta[key] != value:
            raise ValueError(f"{META} says {key} {meta[key]} and not {value}")
    tokenizer = meta.get("tokenizer", {})
    if not isinstance(tokenizer, dict):
        raise ValueError(f"{META} says nothing of the tokenizer")
    check_digest(folder / TOKENIZER, tokenizer)
    return meta


def check_digest(path: Path, facts: Mapping[str, Any]) -> None:
    """Compare a file with the digest that was kept of it; of an older version's tokenizer none was."""
    if file_digest(path) != facts.get("sha256", file_digest(path)):
        raise ValueError(f"{path.name} is not as it was written")


def _found(folder: Path, load: Callable[[Path], T]) -> T | None:
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
