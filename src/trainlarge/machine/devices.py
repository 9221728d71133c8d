"""Which GPUs there are, found without starting CUDA: what the launcher starts would be started for its jobs too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from trainlarge.errors import UserError
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


def check_device(device: str, compiling: str) -> None:
    """Refuse ``impl.device`` and ``impl.compile`` where this machine has not what they need.

    Only where no GPU is listed, and one is asked for, is torch imported: it may know others, such as those of AMD.

    Raises:
        UserError: naming the key.
    """
    is_listed = bool(visible_devices() and _listed(shutil.which("nvidia-smi")))
    if device == "cuda" and not is_listed and not _torch_has_one():
        raise no_cuda(device)
    if compiling == "graphs" and (device == "cpu" or not (is_listed or _torch_has_one())):
        raise graphs_without_cuda()
    compiler = os.environ.get("CXX") or "g++"
    if compiling != "none" and shutil.which(compiler) is None:
        raise UserError(
            "impl.compile", compiling, f"none where there is no C++ compiler ({compiler}, or what $CXX names)"
        )


def no_cuda(device: str) -> UserError:
    """The error of a device that is not there."""
    return UserError("impl.device", device, "cpu or auto: this machine has no CUDA device")


def graphs_without_cuda() -> UserError:
    """The error of CUDA graphs on a CPU."""
    return UserError("impl.compile", "graphs", "none or inductor on the CPU: graphs are those of CUDA")


def _torch_has_one() -> bool:
    import torch

    return torch.cuda.is_available()


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
