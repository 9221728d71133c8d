"""What the group ``sweep`` says of a machine, applied to a composed configuration: where files are, how large budgets.

Both are no part of a cell: it is the one that it would be with the paths and budgets written out.
"""

from __future__ import annotations

import math
from pathlib import Path

from trainlarge.config.budget import Budget, parse_budget
from trainlarge.config.group import Plain
from trainlarge.config.sweep import SweepConfig
from trainlarge.errors import UserError
from trainlarge.sweep.compose import Composed

LARGEST_FACTOR = 1e9
_FILE_KEYS = frozenset({"files", "validation_files"})
_HORIZON = "schedule.horizon"


def adapted(composed: Composed, sweep: SweepConfig) -> Composed:
    """A composed configuration with the files in ``data_folder`` and its budgets times ``budget_factor``.

    Raises:
        UserError: the folder is not there, the factor is no such number, or the stage has no budget.
    """
    if sweep.data_folder is not None and "data" in composed:
        composed = {**composed, "data": _in_folder(composed["data"], _existing(sweep.data_folder))}
    return composed if sweep.budget_factor == 1 else _scaled(composed, sweep.budget_factor)


def _existing(folder: str) -> Path:
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError("sweep.data_folder", folder, "a folder that exists: that of the files that data.files names")
    return path.absolute()


def _in_folder(data: Plain, folder: Path) -> Plain:
    """The group ``data``, also of several texts below it, with its paths below a folder unless they are absolute."""
    if not isinstance(data, dict):
        return data
    return {
        key: _joined(value, folder) if key in _FILE_KEYS else _in_folder(value, folder) for key, value in data.items()
    }


def _joined(paths: Plain, folder: Path) -> Plain:
    if not isinstance(paths, list):
        return paths
    return [path if not isinstance(path, str) or path.startswith("~") else str(folder / path) for path in paths]


def _scaled(composed: Composed, factor: float) -> Composed:
    """Every budget, and the length of the schedule, times a factor."""
    if not (math.isfinite(factor) and 0 < factor <= LARGEST_FACTOR):
        raise UserError("sweep.budget_factor", factor, f"a number above 0 and at most {LARGEST_FACTOR:g}")
    if "budget" not in composed:
        raise UserError("sweep.budget_factor", factor, "1 in the compress stage: it multiplies budgets of train cells")
    budgets, schedule = composed["budget"], composed.get("schedule")
    several = isinstance(budgets, list)
    scaled = [_times(budget, factor, "budget") for budget in (budgets if isinstance(budgets, list) else [budgets])]
    if isinstance(schedule, dict) and schedule.get("horizon") is not None:
        schedule = {**schedule, "horizon": _times(schedule["horizon"], factor, _HORIZON)}
    return {**composed, "budget": list[Plain](scaled) if several else scaled[0], "schedule": schedule}


def _times(text: Plain, factor: float, key: str) -> str:
    budget = parse_budget(text, key)
    return str(Budget(budget.value * factor, budget.unit))
