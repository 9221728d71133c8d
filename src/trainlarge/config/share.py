"""Where ``conf/`` and ``sweeps/`` are: next to ``src`` in a checkout, inside the package in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def share_folder() -> Path:
    """The folder that holds ``conf/`` and ``sweeps/``."""
    checkout = _PACKAGE.parents[1]
    return checkout if (checkout / "conf" / "train.yaml").is_file() else _PACKAGE
