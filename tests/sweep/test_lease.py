from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import pytest

from trainlarge.sweep import lease as module
from trainlarge.sweep.lease import LEASE_SECONDS, Lease, is_held

FORK = multiprocessing.get_context("fork")


def _acquire(folder: Path, begin: Barrier, tried: Barrier, won: Any, finish: Any) -> None:
    begin.wait()
    if Lease.acquire(folder):
        with won.get_lock():
            won.value += 1
    tried.wait()
    finish.wait()


@pytest.mark.parametrize("round_", range(5))
def test_of_many_processes_one_gets_the_lease(tmp_path: Path, round_: int) -> None:
    begin, tried, won, finish = FORK.Barrier(8), FORK.Barrier(9), FORK.Value("i", 0), FORK.Event()
    processes = [FORK.Process(target=_acquire, args=(tmp_path, begin, tried, won, finish)) for _ in range(8)]
    for process in processes:
        process.start()
    tried.wait(timeout=120)
    assert won.value == 1 and is_held(tmp_path)
    finish.set()
    for process in processes:
        process.join()
    assert not is_held(tmp_path)


def test_released_leases_can_be_taken_and_numbers_grow(tmp_path: Path) -> None:
    first = Lease.acquire(tmp_path)
    assert first and Lease.acquire(tmp_path) is None
    first.release()
    second = Lease.acquire(tmp_path)
    assert second and second.number > first.number
    assert second.is_held() and not first.is_held()


def test_a_killed_holder_is_replaced_at_once(tmp_path: Path) -> None:
    begin, tried, won, finish = FORK.Barrier(1), FORK.Barrier(2), FORK.Value("i", 0), FORK.Event()
    holder = FORK.Process(target=_acquire, args=(tmp_path, begin, tried, won, finish))
    holder.start()
    tried.wait(timeout=120)
    assert is_held(tmp_path)
    assert Lease.acquire(tmp_path) is None
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    assert Lease.acquire(tmp_path)


def test_a_step_of_the_clock_kills_no_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the boot, as the system tells it, moves with every step of its clock."""
    lease = Lease.acquire(tmp_path)
    assert lease
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted + 1)
    assert is_held(tmp_path) and Lease.acquire(tmp_path) is None and lease.is_held()


def test_a_holder_of_another_start_is_dead_and_one_that_told_it_in_seconds_is_unknown(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path)
    assert lease
    written = json.loads(lease.path.read_text())
    lease.path.write_text(json.dumps({**written, "born": time.time() - 1}))
    assert is_held(tmp_path), "as versions before wrote it"
    lease.path.write_text(json.dumps({**written, "born": written["born"] + 1}))
    assert not is_held(tmp_path), "its number was given to another process"


def test_a_holder_elsewhere_is_judged_by_its_heartbeat_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Lease.acquire(tmp_path)
    assert lease
    monkeypatch.setattr(module, "_process_space", lambda: "another machine")
    assert is_held(tmp_path)
    old = time.time() - LEASE_SECONDS - 1
    os.utime(lease.path, (old, old))
    assert not is_held(tmp_path)
    lease.renew()
    assert is_held(tmp_path)


@pytest.fixture
def nobody_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is known to be silent: this process is the holder of all tests."""
    monkeypatch.setattr(module, "_silent", set())


@pytest.fixture
def quick_heart(nobody_silent: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats of a fifth of a second: two of them without a sign are soon over."""
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)


@pytest.mark.usefixtures("nobody_silent")
@pytest.mark.parametrize("jump", [-7200, -LEASE_SECONDS - 1, LEASE_SECONDS + 1, 7200])
def test_a_jumping_clock_takes_no_cell_from_a_living_holder(tmp_path: Path, jump: float) -> None:
    """The clock moves by ``jump``: the last heartbeat lies as far on the other side."""
    lease = Lease.acquire(tmp_path)
    assert lease
    os.utime(lease.path, (time.time() - jump,) * 2)
    heart = threading.Timer(0.15, lease.renew)
    heart.start()
    assert Lease.acquire(tmp_path) is None
    heart.join()
    assert lease.is_held() and is_held(tmp_path)


@pytest.mark.usefixtures("quick_heart")
@pytest.mark.parametrize("jump", [-7200, 7200])
def test_a_jumping_clock_keeps_no_cell_for_a_dead_holder(
    tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease.acquire(tmp_path)
    assert lease
    monkeypatch.setattr(module, "_process_space", lambda: "another machine")
    os.utime(lease.path, (time.time() - jump,) * 2)
    assert Lease.acquire(tmp_path) and not lease.is_held()


@pytest.mark.usefixtures("quick_heart")
def test_a_silent_holder_is_watched_once_for_all_its_cells(tmp_path: Path) -> None:
    leases = [Lease.acquire(tmp_path / str(cell)) for cell in range(20)]
    for lease in leases:
        assert lease
        os.utime(lease.path, (0, 0))
    started = time.monotonic()
    assert all(Lease.acquire(tmp_path / str(cell)) for cell in range(20))
    assert time.monotonic() - started < 5 * module.WATCHED_HEARTBEATS * module.HEARTBEAT_SECONDS


@pytest.mark.usefixtures("quick_heart")
def test_a_torn_lease_is_held_until_it_expires(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path)
    assert lease
    lease.path.write_text("")
    assert Lease.acquire(tmp_path) is None and is_held(tmp_path)
    os.utime(lease.path, (0, 0))
    assert not is_held(tmp_path) and Lease.acquire(tmp_path)


@pytest.mark.usefixtures("quick_heart")
def test_an_old_holder_that_wakes_up_is_fenced_off(tmp_path: Path) -> None:
    old = Lease.acquire(tmp_path)
    assert old
    stopped = time.time() - LEASE_SECONDS - 1
    os.utime(old.path, (stopped, stopped))
    new = Lease.acquire(tmp_path)
    assert new and new.is_held() and not old.is_held()
    old.release()
    assert new.is_held() and is_held(tmp_path)
