"""Whether a job still works, or hangs: waits for something that does not come, such as a lock or a dead disk.

A heartbeat cannot tell: it comes from a thread of its own, which goes on while the job hangs. What counts is a sign of
work: a step or a recipe that is done, a message in the log, time on the CPU (of the process or of those that it has
started, which compile or read), bytes read or written. So a long step, such as compiling, calibrating, evaluating or
tokenizing, is no hang, however long it takes. A loop that computes without end is not told from a long step.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

LOOK_SECONDS = 1.0
"""Time between two looks."""
CPU_SHARE = 0.01
"""Share of one core that counts as work: threads that only wait take less than a tenth of that."""
IO_BYTES = 1 << 14
"""Bytes read and written per look that count as work."""
STOPPED_SECONDS = 10.0
"""A look that comes so late finds a process that was stopped, or a machine that slept: its waiting begins anew."""
CHILDREN_SHARE = 0.1
"""Share of the limit after which the processes that it has started are asked too, which takes longer."""

NO_PROGRESS_FOR = "no progress for"
"""How words for a hang begin."""


@dataclass(frozen=True)
class _Counted:
    """What a process has used since it started."""

    cpu: float
    """Seconds on the CPU, without those of the thread that looks."""
    io: int
    """Bytes read and written, without those of that thread."""

    @classmethod
    def now(cls) -> _Counted:
        """Up to now, to be called from the thread that looks."""
        return cls(time.process_time() - time.thread_time(), _bytes_of("self") - _bytes_of("thread-self"))


class SignsOfWork:
    """When this process last showed that it works."""

    def __init__(self) -> None:
        self._newest = time.monotonic()
        self.heartbeat_cpu = 0.0
        """Seconds on the CPU of the thread that sends heartbeats, which are no work."""

    def note(self) -> None:
        """A sign: to be called for each step, message or result; from any thread."""
        self._newest = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last sign."""
        return time.monotonic() - self._newest

    def watch(self, limit: float, ended: threading.Event) -> bool:
        """Look for signs until ``ended`` is set or there was none for ``limit`` seconds; whether that is so."""
        process = psutil.Process()
        looked, before, of_children = time.monotonic(), self._counted(), 0.0
        while not ended.wait(min(LOOK_SECONDS, limit / 4)):
            now, counted = time.monotonic(), self._counted()
            elapsed = now - looked
            is_working = counted.cpu - before.cpu >= CPU_SHARE * elapsed or counted.io - before.io >= IO_BYTES
            if is_working or elapsed > STOPPED_SECONDS:
                self.note()
            elif self.idle_seconds > CHILDREN_SHARE * limit:
                seconds = _cpu_of_children(process)
                if abs(seconds - of_children) >= CPU_SHARE * elapsed:
                    self.note()
                of_children = seconds
            looked, before = now, counted
            if self.idle_seconds >= limit:
                return True
        return False

    def _counted(self) -> _Counted:
        counted = _Counted.now()
        return replace(counted, cpu=counted.cpu - self.heartbeat_cpu)


@contextmanager
def watched(signs: SignsOfWork, limit: float, on_hang: Callable[[str], None]) -> Iterator[None]:
    """Watch this process while the block runs; messages that it logs are signs of work too.

    Args:
        signs: what else shows that it works.
        limit: seconds without a sign after which it hangs; 0: it is not watched.
        on_hang: called once, from another thread, with words for it: ``no progress for 5 min (process 12 on n1)``.
    """
    if not limit:
        yield
        return
    ended, handler = threading.Event(), _Noting(signs)

    def watch() -> None:
        if signs.watch(limit, ended):
            on_hang(hang_in_words(limit, os.getpid()))

    thread = threading.Thread(target=watch, name="watch for hangs", daemon=True)
    logging.getLogger("trainlarge").addHandler(handler)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        logging.getLogger("trainlarge").removeHandler(handler)


def hang_in_words(seconds: float, pid: int | None, host: str | None = None) -> str:
    """``no progress for 5 min (process 12 on n1)``; ``host`` is this machine where it is not given."""
    length = f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
    return f"{NO_PROGRESS_FOR} {length} (process {pid} on {host or socket.gethostname()})"


def kill_with_children(pid: int, but_itself: bool = False) -> None:
    """Kill a process and all that it has started, also those that are stopped; gone ones are no error."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), *([] if but_itself else [process])]:
            with suppress(psutil.NoSuchProcess):
                each.kill()


class _Noting(logging.Handler):
    """Takes each message of the main thread for a sign of work: the heartbeat logs too where it fails."""

    def __init__(self, signs: SignsOfWork) -> None:
        super().__init__()
        self._signs = signs

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == threading.main_thread().ident:
            self._signs.note()


def _bytes_of(name: str) -> int:
    """Bytes that a process or thread of ``/proc`` has read and written; 0 where that is not told."""
    try:
        lines = Path(f"/proc/{name}/io").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.partition(":")[2]) for line in lines if line.startswith(("rchar:", "wchar:")))


def _cpu_of_children(process: psutil.Process) -> float:
    """Seconds on the CPU of the processes that one has started, and of those that they have."""
    seconds = 0.0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds
