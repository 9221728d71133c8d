"""Packages that runtimes need, which are not installed with this one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch


def missing_packages(packages: Sequence[str]) -> str | None:
    """Which of these packages are not installed, with the command that installs them; None where all are."""
    missing = [name for name in packages if installed_version(name) is None]
    return f"not installed: pip install {' '.join(missing)}" if missing else None


def installed_version(package: str) -> str | None:
    """Its version; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions_of(packages: Sequence[str]) -> str:
    """Versions of torch and of these packages, such as ``torch 2.13.0, onnxruntime 1.31.1``."""
    others = [f"{name} {known}" for name in packages if (known := installed_version(name))]
    return ", ".join([f"torch {torch.__version__}", *others])
