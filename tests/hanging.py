"""Jobs that hang, in processes of the local launcher: what stands for ``_run_in_child`` there. Once per study."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from trainlarge.launch.local.processes import _run_in_child
from trainlarge.launch.worker import Assignment
from trainlarge.training.saver import Saver

STEP = 20
"""Steps after which it hangs."""


def waits_for_ever(assignment: Assignment, beats: Connection) -> None:
    """Its main thread waits for what does not come; its other threads run."""
    _hang_once(assignment, beats, wait_for_ever)


def always_waits_for_ever(assignment: Assignment, beats: Connection) -> None:
    """The same, however often it is run."""
    hang_after_step(lambda: True, wait_for_ever)
    _run_in_child(assignment, beats)


def lets_no_thread_run(assignment: Assignment, beats: Connection) -> None:
    """Its main thread is in a call of C that keeps Python's lock."""
    _hang_once(assignment, beats, lambda: ctypes.PyDLL(None).sleep(1000))


def computes_for_long(assignment: Assignment, beats: Connection) -> None:
    """It does one long calculation of 6 s, without a step or a message."""
    _hang_once(assignment, beats, lambda: sum(index * index for index in range(30_000_000)))


def _hang_once(assignment: Assignment, beats: Connection, hang: Callable[[], object]) -> None:
    hang_after_step(lambda: is_first(assignment.study), hang)
    _run_in_child(assignment, beats)


def wait_for_ever() -> None:
    """Sleep, as behind a lock that nobody opens."""
    threading.Event().wait()


def is_first(study: Path) -> bool:
    """Whether this is the first call for a study."""
    try:
        (study / "has-hung").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def hang_after_step(is_due: Callable[[], bool], hang: Callable[[], object]) -> None:
    """Have this process save its state at a step of training, and hang there if that is due."""
    save_if_due = Saver.save_if_due

    def save_and_hang(self: Saver, part: str, stop: int) -> None:
        save_if_due(self, part, stop)
        if self.run.step >= STEP and is_due():
            self.run.pause()
            self.save(part, stop)
            hang()

    Saver.save_if_due = save_and_hang  # type: ignore[method-assign]
