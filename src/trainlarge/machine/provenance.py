"""Where a result comes from: software, hardware, commit, command."""

from __future__ import annotations

import platform
import socket
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FROM_PYTHON = "(called from Python)"
"""What stands for the command of a result that no command line asked for."""
PACKAGES = ("trainlarge", "torch", "transformers", "pytorch-lightning", "tokenizers", "numpy")


@lru_cache(maxsize=1)
def software() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


@lru_cache(maxsize=1)
def code() -> dict[str, Any]:
    """Commit of the code and whether the checkout was changed since; None where git does not know the code.

    Asked once, before a job runs: a checkout may move on while a cell trains for days. Code that git does not track, as
    of a package installed inside another project, is not of that project's commit.
    """
    file = Path(__file__).resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return {"commit": None, "dirty": None}
    changes = _git(file.parent, "status", "--porcelain")
    return {"commit": _git(file.parent, "rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def origin(command: str | None = None) -> dict[str, Any]:
    """Commit of the code and whether it was changed since, host and command.

    Args:
        command: the command line that asked for the result; None where Python code did.
    """
    return {**code(), "host": socket.gethostname(), "command": command or FROM_PYTHON}


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
