"""The right to run a cell: exclusive, renewed by a heartbeat, taken over when its holder is dead.

A lease is a file ``lease/<number>.json``, created exclusively; the highest number holds the cell. Taking over creates
the next number, so of any number of processes that find a dead holder exactly one wins, and the old holder, should it
still live, sees that it has been fenced off. Only the holder touches its file: the time of change is the heartbeat,
told by the file server's clock, so that clocks of different machines do not matter. That clock can be set and a laptop
can sleep, so a heartbeat that looks old, or is in the future, is watched before its holder is taken for dead.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from trainlarge.config import typed_json
from trainlarge.config.group import Plain
from trainlarge.sweep.files import create_exclusively, make_folder, read_json, write_json

LEASE_SECONDS = 60.0
"""A holder that has not renewed for this long is taken for dead."""
HEARTBEAT_SECONDS = 5.0
"""Time between two renewals."""
WATCHED_HEARTBEATS = 2
"""For how many of them a lease that looks expired is watched before it is taken over."""
_LOOK_SECONDS = 0.05
_DEAD = ("Z", "X")
"""States of the kernel for a process that has ended and whose parent has not asked yet."""
_silent: set[_Holder] = set()
"""Holders that this process has watched in vain: their other cells are not watched again."""


@dataclass(frozen=True)
class _Holder:
    """What a lease file says of the process that holds it."""

    released: bool
    """Whether it has given the cell back."""
    host: str
    """Name of its machine."""
    pid: int | None
    """Its number; None where the file is torn."""
    born: int | float | None
    """When it was started, see ``_born``."""
    space: str | None
    """The set of process numbers that its own is one of, see ``_process_space``."""

    @classmethod
    def this(cls, released: bool) -> _Holder:
        """This process."""
        pid = os.getpid()
        return cls(released, socket.gethostname(), pid, _born(pid), _process_space())

    @classmethod
    def of(cls, path: Path) -> _Holder | None:
        """The holder that a lease file names; None where the file is gone.

        A torn one, as a crashed machine leaves it, is a holder of which nothing is known.
        """
        try:
            return typed_json.read(cls, read_json(path))
        except FileNotFoundError:
            return None
        except (IsADirectoryError, ValueError):
            return cls(released=False, host=f"of the torn file {path.stat().st_ino}", pid=None, born=None, space=None)

    @property
    def has_given_up(self) -> bool:
        """Whether it gave the cell back or is known to be dead."""
        return self.released or self._is_known_dead

    @property
    def _is_known_dead(self) -> bool:
        """Whether it ran in this very process space and is gone; elsewhere only the heartbeat can tell."""
        if self.pid is None or self.space != _process_space():
            return False
        born = _born(self.pid)
        # Seconds, as earlier versions wrote them, are no ticks: such a holder is unknown, and watched.
        return born is None or (type(born) is type(self.born) and born != self.born)


@dataclass(frozen=True)
class Lease:
    """The right to run one cell, until released or lost."""

    path: Path
    """The lease file; its number is the fencing token."""
    token: str
    """What only this holder knows."""

    @classmethod
    def acquire(cls, folder: Path) -> Lease | None:
        """Take the lease of the cell in ``folder``; None while a living process holds it.

        Waits for two heartbeats where the last one looks too old and its holder cannot be asked.
        """
        leases = folder / "lease"
        make_folder(leases, inside=folder.parents[1])
        newest = _newest(leases)
        if newest is not None and (_is_held(newest) or _beats_again(newest)):
            return None
        token = uuid.uuid4().hex
        path = leases / f"{_number(newest) + 1:06d}.json"
        lease = cls(path, token)
        if not create_exclusively(path, json.dumps(_content(token, released=False))):
            return None
        return lease if lease.is_held() else None

    @property
    def number(self) -> int:
        """The fencing token: larger than that of every earlier holder."""
        return _number(self.path)

    def renew(self) -> None:
        """Heartbeat: show that the holder is alive."""
        os.utime(self.path)

    def is_held(self) -> bool:
        """Whether this is still the newest lease: to be asked before every write that counts."""
        return self.path.exists() and _newest(self.path.parent) == self.path

    def release(self) -> None:
        """Give the cell back."""
        if self.is_held():
            write_json(self.path, _content(self.token, released=True))


def _content(token: str, released: bool) -> dict[str, Plain]:
    """What a lease file of this process holds."""
    return {"token": token, **typed_json.plain(_Holder.this(released))}


@dataclass(frozen=True)
class Worker:
    """The process that holds a cell, as far as can be seen from here."""

    pid: int | None
    """Its number; None where the lease is torn."""
    host: str
    """Name of its machine."""
    heartbeat: float
    """When it last renewed its lease, in seconds since 1970 by the file server's clock."""


def worker_of(folder: Path) -> Worker | None:
    """The process that holds the cell in ``folder``, or held it and fell silent; None where it gave it back or died."""
    newest = _newest(folder / "lease")
    holder = _Holder.of(newest) if newest else None
    if newest is None or holder is None or holder.has_given_up:
        return None
    return Worker(holder.pid, holder.host, _heartbeat(newest))


def is_held(folder: Path) -> bool:
    """Whether a process that is not known to be dead holds the cell in ``folder``."""
    newest = _newest(folder / "lease")
    return newest is not None and _is_held(newest)


def _newest(leases: Path) -> Path | None:
    # A stray file is no lease.
    return max((path for path in leases.glob("*.json") if path.stem.isdecimal()), default=None, key=_number)


def _number(path: Path | None) -> int:
    return int(path.stem) if path else 0


def _is_held(path: Path) -> bool:
    holder = _Holder.of(path)
    if holder is None or holder.has_given_up:
        return False
    # A heartbeat in the future is one from before the clock was set back.
    return abs(_server_time(path.parent) - _heartbeat(path)) < LEASE_SECONDS


def _beats_again(path: Path) -> bool:
    """Whether the holder of a lease that looks expired renews it after all."""
    holder = _Holder.of(path)
    if holder is None or holder.has_given_up or holder in _silent:
        return False
    before, end = _heartbeat(path), time.monotonic() + WATCHED_HEARTBEATS * HEARTBEAT_SECONDS
    while time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
        if _heartbeat(path) != before:
            return True
    _silent.add(holder)
    return False


def _heartbeat(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _server_time(folder: Path) -> float:
    """The clock that stamps heartbeats, in seconds: a file server's differs from this machine's."""
    probe = folder / f".clock.{uuid.uuid4().hex[:8]}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _born(pid: int) -> int | float | None:
    """When a process was started; None where it is dead.

    In clock ticks since the boot, which ``_process_space`` names, and not in seconds since 1970: those move with every
    step of the system's clock.
    """
    try:
        if not psutil.LINUX:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
        # The name before the last bracket may hold anything; the state is the third field, the start the 22nd.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in _DEAD else int(fields[19])
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


@lru_cache(maxsize=1)
def _process_space() -> str:
    """Names the set of process numbers that this process sees: machine, boot and container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
