"""Commands that know nothing of each other do not put two jobs on one device."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import pytest

from trainlarge.launch.device_lock import hold_devices
from trainlarge.launch.place import Place

# A lock belongs to an opened file, not to a process, so that threads stand for commands here.


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def gets(*devices: str, per_device: int = 1) -> bool:
    """Whether a job gets these devices before it is asked to stop; what it got stays locked."""
    deadline, waited = time.monotonic() + 0.5, threading.Event()

    def is_asked_to_stop() -> bool:
        if time.monotonic() > deadline:
            waited.set()
        return waited.is_set()

    hold_devices(Place(1, devices, per_device), is_asked_to_stop)
    return not waited.is_set()


def test_a_device_has_one_job() -> None:
    assert gets("0") and not gets("0") and gets("1") and not gets("2", "1")


def test_those_who_share_come_together_but_not_beside_one_that_does_not() -> None:
    assert gets("0", per_device=2) and gets("0", per_device=2) and not gets("0")
    assert gets("1") and not gets("1", per_device=2)


def test_without_devices_nothing_is_locked(tmp_path: Path) -> None:
    assert gets() and gets() and not list(tmp_path.glob("trainlarge-devices"))


def test_where_no_lock_can_be_the_job_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "trainlarge-devices").write_text("in the way")
    assert gets("0") and gets("0")
