"""Memory of this process: what it may use, and keeping what a training step frees for the next step."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path, PurePosixPath

import psutil

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3) in the GNU C library."""

_GROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_KEPT_BYTES = 1 << 30
_OLD_LIMIT = 1 << 25
"""Largest threshold that older versions of the library take."""


def keep_freed_memory() -> bool:
    """Have this process keep freed memory rather than give it back to the system; call before the first step.

    By default the GNU C library returns large freed blocks at once, so that every step of a model on the CPU asks for
    its activations again and the system fills them with zeros page by page: 17 to 33 % of a small model's step. The
    process then stays as large as it once was.

    Returns:
        Whether blocks of up to a gigabyte are kept; other C libraries (macOS, musl) have no such setting.
    """
    try:
        set_parameter = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return False
    if not set_parameter(_MMAP_THRESHOLD, _KEPT_BYTES):
        set_parameter(_TRIM_THRESHOLD, _KEPT_BYTES)
        set_parameter(_MMAP_THRESHOLD, _OLD_LIMIT)
        return False
    return bool(set_parameter(_TRIM_THRESHOLD, _KEPT_BYTES))


def free_memory() -> int:
    """Bytes that this process can still take: on the machine, in its control groups, in its SLURM job; the least."""
    return min([psutil.virtual_memory().available, *_left_in_groups(), *_left_in_slurm()])


def _left_in_groups(root: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> list[int]:
    """What the control group of this process and each group around it leave, where they have a limit.

    Args:
        root: where the kernel's control groups are mounted.
        membership: the groups of the process, lines of ``number:controllers:path`` (cgroups(7)).
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    groups = (line.split(":", 2)[1:] for line in lines if line.count(":") >= 2)
    return [left for controllers, path in groups for left in _left_along(root, controllers, path)]


def _left_along(root: Path, controllers: str, path: str) -> list[int]:
    """What the groups from ``path`` up to the root leave; nothing for a hierarchy that does not count memory."""
    if controllers:
        if "memory" not in controllers.split(","):
            return []
        root, names = root / "memory", ("limit_in_bytes", "usage_in_bytes")
    else:
        names = ("max", "current")
    # In a container the path may be the host's, which is not there: the root is then the container's own group.
    group = PurePosixPath("/", path).relative_to("/")
    return [left for folder in (group, *group.parents) for left in _left_in(root / folder, *names)]


def _left_in(group: Path, limit: str, used: str) -> list[int]:
    try:
        bytes_of = {name: int((group / f"memory.{name}").read_text()) for name in (limit, used)}
    except (OSError, ValueError):
        return []
    return [max(bytes_of[limit] - bytes_of[used], 0)]


def _left_in_slurm() -> list[int]:
    """What ``sbatch --mem`` leaves this process: SLURM may kill a job above it without a control group."""
    megabytes = os.environ.get("SLURM_MEM_PER_NODE", "")
    if not megabytes.isdecimal() or not int(megabytes):
        return []
    return [max(int(megabytes) * 2**20 - psutil.Process().memory_info().rss, 0)]
