"""The files in which a study keeps its step times, and the budgets in seconds that they prove to be missed. No torch.

``<study>/probes/<key>.json`` belongs to one shape on one device, computed in one way: its ``key``, the ``rounds``
that were observed, the estimate ``step_seconds`` that they give, and ``cells``: the step time by which the budget of
each cell was turned into steps. The estimate only falls. A cell whose own step time lies above it by more than
``CONTRADICTED`` got fewer steps than its seconds buy, since other work disturbed the device while it was measured.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from trainlarge.sweep.sealed import read_sealed
from trainlarge.sweep.store import Study

log = logging.getLogger(__name__)

PROBES = "probes"
"""Folder of a study in which the times of its steps are kept."""
CONTRADICTED = 1.2
"""Ratio of a cell's step time to the present estimate from which on its budget counts as missed."""


def read_measured(path: Path) -> dict[str, Any]:
    """What was measured and kept in ``path``; nothing where it is not there or damaged: it is measured again."""
    try:
        return read_sealed(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        log.warning("%s is damaged (%s): it is measured again", path, error)
        return {}


def is_contradicted(step_seconds: float, estimate: float) -> bool:
    """Whether the present ``estimate`` proves that ``step_seconds`` is no steady-state step time."""
    return step_seconds > CONTRADICTED * estimate


def budgets_missed(study: Study) -> dict[str, float]:
    """Train cells whose budget in seconds was missed -> the steps that it buys over the steps that they got.

    Cells of before this was kept are not known and not named.
    """
    found: dict[str, float] = {}
    for path in (study.path / PROBES).glob("*.json"):
        estimate, cells = _kept(path)
        found |= {cell: seconds / estimate for cell, seconds in cells.items() if is_contradicted(seconds, estimate)}
    return found


def missed_in_words(missed: dict[str, float]) -> str:
    """One line on cells whose budget was missed, to be followed by the command that makes it good."""
    cells = "1 cell" if len(missed) == 1 else f"{len(missed)} cells"
    worst = max(missed.values())
    return (
        f"{cells} got too few steps (their seconds buy up to {worst:.1f} times as many), since other work disturbed "
        f"the device while the step time was measured; the same command trains them on"
    )


def _kept(path: Path) -> tuple[float, dict[str, float]]:
    """Estimate and cells of a file; nothing where it is damaged, since what is measured next replaces it."""
    try:
        data = read_sealed(path)
        return float(data["step_seconds"]), dict(data.get("cells", {}))
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0, {}
