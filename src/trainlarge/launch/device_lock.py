"""One job a device, also between commands: a lock for each device, which the kernel opens when its holder ends.

Two names of one device (its number and its UUID), and containers that share no ``/tmp``, are not recognised.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trainlarge.launch.place import Place

POLL_SECONDS = 0.2


def hold_devices(place: Place, is_asked_to_stop: Callable[[], bool]) -> None:
    """Wait until the devices of ``place`` are free, and hold them until this process ends.

    Jobs that share devices on purpose hold them together, but not beside a job that has them alone.

    Args:
        is_asked_to_stop: ends the waiting.
    """
    kind = fcntl.LOCK_SH if place.per_device > 1 else fcntl.LOCK_EX
    has_waited = False
    # In one order for all, so that no two jobs of several devices wait for each other.
    for device in sorted(place.devices):
        descriptor = _open(device)
        while descriptor is not None and not is_asked_to_stop() and not _lock(descriptor, kind):
            if not has_waited:
                print(f"waiting for GPU {device}, which another command uses", flush=True)
            has_waited = True
            time.sleep(POLL_SECONDS)


def _open(device: str) -> int | None:
    """The lock file of a device; None where there can be none, which must not keep a job from running."""
    folder = Path(tempfile.gettempdir()) / "trainlarge-devices"
    try:
        folder.mkdir(exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            # For other users' commands too.
            folder.chmod(0o777)
        return os.open(folder / device.replace("/", "_"), os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:
        return None


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
