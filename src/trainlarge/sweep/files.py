"""Writing so that a reader sees the old file or the new one, never a part, also after a crash or on a full disk.

Flushing costs milliseconds per file, on a network disk tens of them: half a minute to freeze ten thousand cells. So
what cannot be made again is *durable*, flushed before it is renamed; what the same command writes again (frozen
configurations, queued and running states) is only renamed, and survives every crash but that of the machine.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import math
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
from filelock import FileLock, Timeout

from trainlarge.config.group import Plain
from trainlarge.errors import UserError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
"""What ``flock`` says where there are no locks. For ENOSYS the library makes a file of its own the lock."""
MOST_BYTES = 1 << 30
"""Of a file that is read whole: ten times the curve of a million steps."""
log = logging.getLogger(__name__)

WAIT_LINE_SECONDS = 60.0
"""Time between two lines about a lock that another process holds."""
_PIECE = 1 << 16
"""Bytes that are read at once; nearly all files are smaller."""


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path to write to; renamed to ``path`` if the block ends well, else removed.

    Args:
        durable: flush before renaming, so that the file is whole even after the machine itself has crashed.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if durable:
            flush(temporary)
        _put_in_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _put_in_place(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except IsADirectoryError:
        _remove_empty_folder(path)
        temporary.replace(path)


def remove_file(path: Path) -> None:
    """Remove a file, where there is one; an empty folder in its place, too."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        _remove_empty_folder(path)


@contextmanager
def file_lock(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock that processes share; an empty folder in its place is removed.

    Each minute of waiting is told in the log, from which a job is also known not to hang.

    Args:
        timeout: seconds to wait; negative: as long as it takes.

    Raises:
        UserError: where the file system has no locks; it names the folder.
        filelock.Timeout: another process has held it for so long.
    """
    if path.is_dir():
        _remove_empty_folder(path)
    lock, end = FileLock(path), math.inf if timeout < 0 else time.monotonic() + timeout
    while not lock.is_locked:
        try:
            lock.acquire(timeout=max(0.0, min(WAIT_LINE_SECONDS, end - time.monotonic())))
        except Timeout:
            if time.monotonic() >= end:
                raise
            log.info("waiting for %s, which another process has locked", path)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            allowed = "a folder on a file system with locks (flock): mount it with them, or set TRAINLARGE_STUDIES"
            raise UserError(str(path.parent), error.strerror, allowed) from error
    try:
        yield
    finally:
        lock.release()


def _remove_empty_folder(path: Path) -> None:
    """Remove a folder in the place of a file, which a new file then repairs; files in it are not ours."""
    try:
        path.rmdir()
    except OSError as error:
        raise UserError(str(path), "a folder with files", "a file: remove the folder") from error


@contextmanager
def replacing_folder(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A temporary folder to write files into; flushed and renamed to ``path`` if the block ends well, else removed.

    Args:
        check: called last before the old folder gives way; what it raises leaves that as it is.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        give_usual_mode(temporary)
        for file in temporary.rglob("*"):
            flush(file)
        check()
        _rename_over(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def give_usual_mode(folder: Path) -> None:
    """Give the files below a folder the mode that the umask gives to a new file.

    What safetensors writes, only the owner may read.
    """
    new = folder / f".{uuid.uuid4().hex[:8]}.tmp"
    new.touch()
    mode = stat.S_IMODE(new.stat().st_mode)
    new.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            # A file system without modes gives all files the same.
            with suppress(OSError):
                path.chmod(mode)


def _rename_over(target: Path, source: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    remove(old)
    if target.is_symlink():
        target.unlink()
    elif target.exists():
        target.rename(old)
    source.rename(target)
    remove(old)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; of a link only the link itself, wherever it leads.

    A folder of which something cannot be removed is left behind. A path *through* a link is the caller's matter.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path, inside: Path) -> None:
    """Make a folder to write into where it is not there, with those above it.

    Args:
        inside: the study, or the folder of all studies; see ``refuse_links``.

    Raises:
        UserError: where a link or a file is in its place.
    """
    refuse_links(path, inside)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        in_place = next(place for place in (path, *path.parents) if place.exists())
        raise UserError(str(in_place), "a file", "a folder: remove the file") from error


def refuse_links(path: Path | str, inside: Path | str) -> None:
    """Refuse to write into a folder that is a link, or that a link below ``inside`` leads to: it is not ours to change.

    Args:
        inside: the study, or the folder of all studies, which may be a link: its place is the user's choice.

    Raises:
        UserError: naming the link.
    """
    # As text: asked for each of ten thousand cells.
    place, end = os.fspath(path), os.fspath(inside)
    while len(place) > len(end):
        if os.path.islink(place):  # noqa: PTH114
            raise _is_link(Path(place), "folder")
        place = os.path.dirname(place)  # noqa: PTH120


def open_to_append(path: Path) -> int:
    """Descriptor of a file that is written at its end, made where it is not there.

    Raises:
        UserError: where a link is in its place: what it leads to is not ours to write to.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        return os.open(path, flags, 0o666)
    except IsADirectoryError:
        _remove_empty_folder(path)
        return os.open(path, flags, 0o666)
    except OSError as error:
        if path.is_symlink():
            raise _is_link(path, "file") from error
        raise


def _is_link(path: Path, kind: str) -> UserError:
    return UserError(str(path), f"a link to {path.readlink()}", f"a plain {kind}: remove the link")


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Replace the file ``path`` by ``text``."""
    with replacing(path, durable) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, object], durable: bool = True) -> None:
    """Replace the file ``path`` by ``value`` as indented JSON (no NaN, no infinity)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", durable)


def create_exclusively(path: Path, text: str) -> bool:
    """Create ``path`` holding ``text``; False if it exists. Of any number of processes one succeeds.

    By a hard link, which is atomic on network folders too. Not every file system has them (exFAT, many mounts of
    objects and of other machines): then by a rename that replaces nothing, and where that is missing too by a file that
    is made empty and then replaced, so that a reader sees it empty or whole. All ways exclude each other.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        for publish in (os.link, _rename_to_new):
            try:
                publish(temporary, path)
                return True
            except FileExistsError:
                raise
            except OSError:
                continue
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        temporary.replace(path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _rename_to_new(source: Path, target: Path) -> None:
    """Rename a file to a name that is free; Linux has it since 3.15, Python has no function for it.

    Raises:
        FileExistsError: there is such a file.
        OSError: the system or the file system cannot do that.
    """
    here, noreplace, rename = -100, 1, getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(target))
    if rename(here, os.fsencode(source), here, os.fsencode(target), noreplace):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def rows_of(content: bytes) -> list[dict[str, Plain]]:
    """The rows of a JSON-lines file; a torn last line, as a crash leaves it, is dropped. See ``read_json`` for numbers.

    Raises:
        ValueError: for any other line that is damaged, or is no mapping from keys to values.
    """
    # One call for all lines: a study has tens of thousands.
    if content.endswith(b"\n") and b"\n\n" not in content and not content.startswith(b"\n"):
        rows = orjson.loads(b"[%s]" % content[:-1].replace(b"\n", b","))
    else:
        *whole, last = content.split(b"\n")
        rows = [*orjson.loads(b"[%s]" % b",".join(filter(None, whole))), *_torn_or_whole(last)]
    if not set(map(type, rows)) <= {dict}:
        raise ValueError("a row is no mapping from keys to values")
    return list[dict[str, Plain]](rows)


def read_json(path: Path | str) -> Plain:
    """The content of a JSON file. Whole numbers beyond 64 bits, as FLOPs may be, are read as floats.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it is not JSON in UTF-8.
    """
    content: Plain = orjson.loads(read_bytes(path))
    return content


def exact_json(content: bytes) -> Plain:
    """JSON with whole numbers of any size as they are. Raises ValueError where it is none."""
    try:
        value: Plain = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def read_bytes(path: Path | str) -> bytes:
    """The content of a file. By its descriptor: a study has tens of thousands, and ``open`` takes twice as long.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it has more than ``MOST_BYTES``, as a device in its place may.
    """
    # A pipe in the place of a file would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        content = os.read(descriptor, _PIECE)
        if rest := os.read(descriptor, _PIECE):
            content = b"".join([content, rest, *_pieces(descriptor)])
        return content
    except OSError as error:
        # Reading by a descriptor, as of a folder, fails without the name.
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def _pieces(descriptor: int) -> Iterator[bytes]:
    read = 0
    while piece := os.read(descriptor, _PIECE):
        read += len(piece)
        if read > MOST_BYTES:
            raise ValueError(f"larger than {MOST_BYTES} bytes")
        yield piece


def _torn_or_whole(line: bytes) -> list[Plain]:
    try:
        return [orjson.loads(line)] if line else []
    except orjson.JSONDecodeError:
        return []


def flush(path: Path) -> None:
    """Have the file or folder ``path`` on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
