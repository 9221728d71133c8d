"""Where a result comes from: software, hardware, commit, command."""

from __future__ import annotations

import platform
import socket
import subprocess
import time
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from trainlarge.sweep.records import Provenance

FROM_PYTHON = "(called from Python)"
"""What stands for the command of a result that no command line asked for."""
PACKAGES = ("trainlarge", "torch", "transformers", "pytorch-lightning", "tokenizers", "numpy")


@lru_cache(maxsize=1)
def software() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


class Code(NamedTuple):
    """What is computed by."""

    commit: str | None
    """Git commit; None where git does not know the code."""
    dirty: bool | None
    """Whether the checkout was changed since; None where that is not known."""


@lru_cache(maxsize=1)
def code() -> Code:
    """Commit of the code and whether the checkout was changed since; None where git does not know the code.

    Asked once, before a job runs: a checkout may move on while a cell trains for days. Code that git does not track, as
    of a package installed inside another project, is not of that project's commit.
    """
    file = Path(__file__).resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return Code(None, None)
    changes = _git(file.parent, "status", "--porcelain")
    return Code(_git(file.parent, "rev-parse", "HEAD"), None if changes is None else bool(changes))


def origin(command: str | None, started: float) -> Provenance:
    """Where a result comes from that is finished now.

    Args:
        command: the command line that asked for it; None where Python code did.
        started: when its job started, in seconds since 1970.
    """
    commit, dirty = code()
    return Provenance(
        commit=commit,
        dirty=dirty,
        host=socket.gethostname(),
        command=command or FROM_PYTHON,
        started=started,
        ended=time.time(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            # The configuration of a repository may name a program of this kind, which git would run.
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
