"""The settled time of a step on a device: what turns seconds into steps, and steps into modelled seconds.

On a shared machine raw seconds move by a factor of up to four and would reorder the curves. So each shape is timed for
a few seconds, the lower quartile of its steps is kept with the study, and every cell of that shape uses it. Li et
al. 2020 do the same: settled time of 100 steps on one named GPU, times the number of steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from trainlarge.sweep.cell import canonical_json
from trainlarge.sweep.files import write_json

PROBES = "probes"
"""Folder of a study in which the times of its steps are kept."""
PRECISIONS = "precision"
"""Folder beside them in which the precision of each device is kept."""

WARM_UP_STEPS = 5
LEAST_STEPS = 20
LEAST_SECONDS = 1.5
QUANTILE = 0.25
"""Lower quartile: half-way between the fastest step and the median, little moved by other programs."""


def settled_step_seconds(folder: Path, key: dict[str, Any], run_steps: Callable[[int], list[float]]) -> float:
    """Seconds of a settled step, measured once for each ``key`` and kept in ``folder``.

    Args:
        folder: where the times of a study lie.
        key: plain data that names device, implementation, shape and batch.
        run_steps: runs so many training steps and returns the seconds of each.
    """
    return float(kept(folder, key, lambda: _measure(run_steps))["step_seconds"])


def kept(folder: Path, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured for ``key``, at its first call, and is kept in ``folder``; other processes wait meanwhile.

    Args:
        folder: made where it is not there.
        key: plain data.
        measure: gives plain data; called at most once for each ``key``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]}.json"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            write_json(path, {"key": key, **measure()})
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _measure(run_steps: Callable[[int], list[float]]) -> dict[str, Any]:
    run_steps(WARM_UP_STEPS)
    times: list[float] = []
    while sum(times) < LEAST_SECONDS:
        times += run_steps(LEAST_STEPS)
    lower, median = np.quantile(times, [QUANTILE, 0.5])
    return {"step_seconds": float(lower), "median_seconds": float(median), "steps": len(times)}
