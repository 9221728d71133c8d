"""Commands that know nothing of each other do not put two jobs on one device."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest

from trainlarge.launch.local.device_lock import hold_devices
from trainlarge.machine.resources import Resources

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

    hold_devices(Resources(1, devices, per_device), is_asked_to_stop)
    return not waited.is_set()


def test_a_device_has_one_job() -> None:
    assert gets("0") and not gets("0") and gets("1") and not gets("2", "1")


def test_those_who_share_come_together_but_not_beside_one_that_does_not() -> None:
    assert gets("0", per_device=2) and gets("0", per_device=2) and not gets("0")
    assert gets("1") and not gets("1", per_device=2)


def test_without_devices_nothing_is_locked(tmp_path: Path) -> None:
    assert gets() and gets() and not list(tmp_path.glob("trainlarge-devices"))


def test_where_no_lock_can_be_the_job_runs_all_the_same(tmp_path: Path) -> None:
    for name in ("trainlarge-devices", f"trainlarge-devices-{os.getuid()}"):
        (tmp_path / name).write_text("in the way")
    assert gets("0") and gets("0")


def test_others_may_add_locks_but_not_take_ours_away(tmp_path: Path) -> None:
    assert gets("0") and mode(tmp_path / "trainlarge-devices") == 0o1777


def test_the_folder_of_an_older_version_is_mended_and_others_stay_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "trainlarge-devices"
    folder.mkdir()
    for before, after in ((0o777, 0o1777), (0o755, 0o755), (0o700, 0o700)):
        folder.chmod(before)
        assert gets(str(before)) and mode(folder) == after


def test_a_link_in_the_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(0o700)
    (tmp_path / "trainlarge-devices").symlink_to(foreign)
    assert gets("0") and not gets("0")
    assert mode(foreign) == 0o700 and not list(foreign.iterdir())
    assert mode(tmp_path / f"trainlarge-devices-{os.getuid()}") == 0o700


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "trainlarge-devices").mkdir()
    (tmp_path / "trainlarge-devices" / "0").symlink_to(tmp_path / "made")
    assert gets("0") and not gets("0") and not (tmp_path / "made").exists()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_system_without_locks_keeps_no_job_from_running(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert gets("0") and gets("0")
    assert f"devices are not locked: {tempfile.gettempdir()}: No locks available" in caplog.messages
