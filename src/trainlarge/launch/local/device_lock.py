"""One job per device, also across commands: a lock per device, which the kernel opens when its holder ends.

Two names of one device (its number and its UUID), and containers that share no ``/tmp``, are not recognised.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from trainlarge.machine.resources import Resources

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
_FOLDER = "trainlarge-devices"
"""Below the folder of temporary files: everybody's, or where that is none, the user's own with the number after it."""


def hold_devices(resources: Resources, is_asked_to_stop: Callable[[], bool]) -> None:
    """Wait until the devices of ``resources`` are free, and hold them until this process ends.

    Jobs that share devices on purpose hold them together, but not with a job that has them alone.

    Args:
        is_asked_to_stop: ends the waiting.
    """
    kind = fcntl.LOCK_SH if resources.jobs_per_device > 1 else fcntl.LOCK_EX
    has_waited = False
    # In one order for all, so that no two jobs of several devices wait for each other.
    for device in sorted(resources.devices):
        descriptor = _open(device)
        while descriptor is not None and not is_asked_to_stop() and not _lock(descriptor, kind):
            if not has_waited:
                log.info("waiting for GPU %s, which another command uses", device)
            has_waited = True
            time.sleep(POLL_SECONDS)


def _open(device: str) -> int | None:
    """The lock file of a device; None where there can be none, which must not keep a job from running."""
    root = Path(tempfile.gettempdir())
    for name, mode in ((_FOLDER, 0o1777), (f"{_FOLDER}-{os.getuid()}", 0o700)):
        try:
            folder = _opened_folder(root / name, mode)
        except OSError:
            continue
        try:
            return _opened_file(device.replace("/", "_"), folder)
        except OSError:
            continue
        finally:
            os.close(folder)
    return None


def _opened_folder(path: Path, mode: int) -> int:
    """Descriptor of a folder, made with ``mode`` where it is not there. Raises OSError for a link or a file."""
    try:
        path.mkdir(0o700)
        is_new = True
    except FileExistsError:
        is_new = False
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    state = os.fstat(folder)
    # One of mode 0777 that is ours was made by an older version: others could put their files in the place of ours.
    if state.st_uid == os.getuid() and (is_new or stat.S_IMODE(state.st_mode) == 0o777):
        os.fchmod(folder, mode)
    return folder


def _opened_file(name: str, folder: int) -> int:
    """Descriptor of a file of a folder, made where it is not there. Raises OSError for a link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
    except FileExistsError:
        # Without O_CREAT: the kernel refuses that for another user's file in a folder that is everybody's.
        return os.open(name, flags, dir_fd=folder)


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # A file system without locks must not keep a job from running.
        log.warning("devices are not locked: %s: %s", tempfile.gettempdir(), error.strerror)
    return True
