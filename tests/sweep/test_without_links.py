"""Claiming where the file system has no hard links, as exFAT and many mounts: exclusive, and never half a file."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from trainlarge.errors import UserError
from trainlarge.sweep import files, lease
from trainlarge.sweep.files import create_exclusively, file_lock
from trainlarge.sweep.lease import Lease, is_held

FORK = multiprocessing.get_context("fork")
PROCESSES, CELLS = 50, 12
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EXDEV, errno.EACCES)


def without_links(number: int = errno.EPERM) -> None:
    """From now on this process makes no hard link."""

    def link(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    os.link = link  # type: ignore[assignment]


def without_renames() -> None:
    """From now on this process has no rename that replaces nothing."""

    def rename(source: Path, target: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(target))

    files._rename_to_new = rename


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", os.link)
    monkeypatch.setattr(files, "_rename_to_new", files._rename_to_new)
    without_links()
    without_renames()


def _claim_all(
    folders: list[Path], number: int, ways: int, start: Barrier, tried: Barrier, finish: Any, won: Any
) -> None:
    # With several ways, some processes have links and some do not: all exclude each other.
    if number % ways:
        without_links(NO_LINKS[number % len(NO_LINKS)])
    if ways == 3 and number % ways == 1:
        without_renames()
    start.wait()
    for place in range(len(folders)):
        at = (place + number) % len(folders)
        if Lease.acquire(folders[at]):
            with won.get_lock():
                won[at] += 1
        for path in (folders[at] / "lease").glob("[0-9]*.json"):
            content = path.read_bytes()
            assert (not content and ways > 2) or json.loads(content)["token"], "half a file is seen"
    tried.wait()
    finish.wait()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("ways", [2, 3])
def test_of_fifty_processes_one_gets_each_cell(tmp_path: Path, ways: int) -> None:
    folders = [tmp_path / str(number) for number in range(CELLS)]
    start, tried, finish = FORK.Barrier(PROCESSES), FORK.Barrier(PROCESSES + 1), FORK.Event()
    won = FORK.Array("i", CELLS)
    arguments = (ways, start, tried, finish, won)
    processes = [
        FORK.Process(target=_claim_all, args=(folders, number, *arguments), daemon=True) for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    tried.wait(timeout=200)
    assert list(won) == [1] * CELLS and all(map(is_held, folders))
    finish.set()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert not any(map(is_held, folders))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("number", NO_LINKS)
@pytest.mark.parametrize("has_renames", [True, False])
def test_a_file_is_created_once_whatever_the_system_says_of_links(
    tmp_path: Path, no_links: None, number: int, has_renames: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(number)
    if has_renames:
        monkeypatch.undo()
        monkeypatch.setattr(os, "link", os.link)
        without_links(number)
    assert create_exclusively(tmp_path / "a", "first") and not create_exclusively(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first" and [path.name for path in tmp_path.iterdir()] == ["a"]


def _die_at(step: str, folder: Path) -> None:
    without_links()
    without_renames()

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if step == "link":
        os.link = die
    elif step == "open":
        os.open = die  # type: ignore[assignment]
    elif step == "replace":
        Path.replace = die  # type: ignore[assignment, method-assign]
    elif step == "unlink":
        Path.unlink = die  # type: ignore[method-assign]
    create_exclusively(folder / "lease" / "000001.json", '{"token": "dead"}')


@pytest.mark.parametrize("step", ["link", "open", "replace", "unlink"])
def test_a_process_that_dies_while_it_claims_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_links: None, step: str
) -> None:
    (tmp_path / "lease").mkdir()
    process = FORK.Process(target=_die_at, args=(step, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    # Whoever has begun to claim has the time of a heartbeat to go on.
    assert (Lease.acquire(tmp_path) is None) == (step in ("replace", "unlink"))
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.0)
    monkeypatch.setattr(lease, "WATCHED_HEARTBEATS", 0)
    taken = Lease.acquire(tmp_path)
    assert taken and taken.is_held()
    taken.release()


def without_flock(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_locks_that_the_file_system_does_not_have_are_told_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    without_flock(monkeypatch, number)
    with (
        pytest.raises(UserError, match=r"a file system with locks .*TRAINLARGE_STUDIES") as caught,
        file_lock(tmp_path / "a"),
    ):
        pass
    assert caught.value.key == str(tmp_path) and os.strerror(number) in str(caught.value)


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_file_is_the_lock_where_the_system_has_no_flock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch, errno.ENOSYS)
    with file_lock(tmp_path / "a"), pytest.raises(Timeout), file_lock(tmp_path / "a", timeout=0.2):
        pass
    with file_lock(tmp_path / "a", timeout=0.2):
        pass
