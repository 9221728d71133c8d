"""A real SLURM of four virtual nodes on this machine: its commands, and the scripts that start and stop it."""

from __future__ import annotations

import subprocess
from pathlib import Path

SLURM = Path(__file__).resolve().parent / "slurm"
"""Folder of the scripts ``up`` and ``down``."""


def slurm(*command: str) -> str:
    """What a command of SLURM prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()
