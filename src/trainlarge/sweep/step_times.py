"""The files in which a study keeps its step times, and the budgets in seconds that they prove to be missed. No torch.

``<study>/probes/<key>.json`` belongs to one shape on one device, computed in one way: its ``key``, the ``rounds``
that were observed, the estimate ``step_seconds`` that they give, and ``cells``: the step time by which the budget of
each cell was turned into steps. The estimate only falls. A cell whose own step time is above it by more than
``CONTRADICTED`` got fewer steps than its seconds buy, since other work disturbed the device while it was measured.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from trainlarge.config import typed_json
from trainlarge.sweep.sealed import read_sealed
from trainlarge.sweep.store import Study

log = logging.getLogger(__name__)

PROBES = "probes"
"""Folder of a study in which the times of its steps are kept."""
CONTRADICTED = 1.2
"""Ratio of a cell's step time to the present estimate from which on its budget counts as missed."""


T = TypeVar("T")


@dataclass(frozen=True)
class CellSteps:
    """Content of a cell's ``steps.json``: how many steps its budget in seconds became."""

    steps: int
    """Steps of the budget."""
    step_seconds: float
    """Step time by which they were counted."""


@dataclass(frozen=True)
class ProbeEstimate:
    """What a file of ``probes/`` holds, without its rounds."""

    step_seconds: float
    """Steady-state step time."""
    cells: Mapping[str, float] = field(default_factory=dict)
    """Train cell -> step time by which its budget became steps."""

    def __post_init__(self) -> None:
        if self.step_seconds <= 0:
            raise typed_json.JsonTypeError("step_seconds", self.step_seconds, "above 0")


def read_measured(kind: type[T], path: Path) -> T | None:
    """What was measured and kept in ``path``; None where it is not there or damaged: it is measured again.

    Args:
        kind: the dataclass that the content of the file becomes.
    """
    try:
        return typed_json.read(kind, read_sealed(path))
    except FileNotFoundError:
        return None
    except (IsADirectoryError, ValueError) as error:
        log.warning("%s is damaged (%s): it is measured again", path, error)
        return None


def is_contradicted(step_seconds: float, estimate: float) -> bool:
    """Whether the present ``estimate`` proves that ``step_seconds`` is no steady-state step time."""
    return step_seconds > CONTRADICTED * estimate


def budgets_missed(study: Study) -> dict[str, float]:
    """Train cells whose budget in seconds was missed -> the steps that it buys over the steps that they got.

    Cells of before this was kept are not known and not named.
    """
    missed: dict[str, float] = {}
    for path in (study.path / PROBES).glob("*.json"):
        try:
            kept = typed_json.read(ProbeEstimate, read_sealed(path))
        except (OSError, ValueError):
            # What is measured next replaces it.
            continue
        for cell, seconds in kept.cells.items():
            if is_contradicted(seconds, kept.step_seconds):
                missed[cell] = seconds / kept.step_seconds
    return missed


def missed_in_words(missed: dict[str, float]) -> str:
    """One line on cells whose budget was missed, to be followed by the command that makes it good."""
    cells = "1 cell" if len(missed) == 1 else f"{len(missed)} cells"
    worst = max(missed.values())
    return (
        f"{cells} got too few steps (their seconds buy up to {worst:.1f} times as many), since other work disturbed "
        f"the device while the step time was measured; the same command trains them on"
    )
