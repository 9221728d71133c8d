"""Waiting for what other processes do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from trainlarge.sweep.store import CellFolder


def wait_for(condition: Callable[[], object], seconds: float = 150) -> None:
    """Return once the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def holder_of(folder: CellFolder) -> int:
    """Number of the process that trains the cell, once it does."""
    wait_for(lambda: (folder.status().progress.step or 0) > 10)
    return int(json.loads(max((folder.path / "lease").glob("*.json")).read_text())["pid"])
