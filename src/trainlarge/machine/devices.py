"""Which GPUs there are, found without starting CUDA: what the launcher starts would be started for its jobs too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from trainlarge.machine.environment import VISIBLE_DEVICES

TIMEOUT_SECONDS = 30.0
_DRIVER = Path("/proc/driver/nvidia/gpus")
_NAME = re.compile(r"\d+|(?:GPU|MIG)-[\w/-]+")
_LISTED = re.compile(r"UUID: ((?:GPU|MIG)-[\w/-]+)\)")


def visible_devices() -> tuple[str, ...]:
    """Names of the GPUs that this process may use, each fit for ``CUDA_VISIBLE_DEVICES``; empty where there is none.

    What ``CUDA_VISIBLE_DEVICES`` names, up to its first entry that names none, as CUDA reads it; where it is not set,
    what ``nvidia-smi`` lists (parts of a divided GPU instead of the whole), else what the driver counts.
    """
    named = os.environ.get(VISIBLE_DEVICES)
    if named is not None:
        entries = (entry.strip() for entry in named.split(","))
        return tuple(dict.fromkeys(takewhile(_NAME.fullmatch, entries)))
    return _listed(shutil.which("nvidia-smi"))


@lru_cache(maxsize=1)
def _listed(program: str | None) -> tuple[str, ...]:
    if program is None:
        return tuple(map(str, range(len(list(_DRIVER.glob("*"))))))
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return _without_divided(_LISTED.findall(done.stdout)) if done.returncode == 0 else ()


def _without_divided(names: list[str]) -> tuple[str, ...]:
    """A divided GPU is listed before its parts, and only the parts can be used."""
    followers = [*names[1:], ""]
    return tuple(
        name
        for name, follower in zip(names, followers, strict=True)
        if name.startswith("MIG") or not follower.startswith("MIG")
    )
