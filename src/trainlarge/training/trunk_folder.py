"""Paths of the states of a trunk. Names only: no heavy imports.

``<study>/trunks/<trunk id>/<part>-<position>/`` is a state of the trunk or of a branch. The position is the step, or
the milliseconds of training where the real clock counts (:mod:`trainlarge.training.run_length`).
"""

from __future__ import annotations

from pathlib import Path

TRUNKS = "trunks"
"""Folder of a study in which jobs keep the states from which they resume."""
TRUNK = "trunk"
"""Part of a run that its branches share."""
KEPT_STATES = 2
"""States of a part that are kept: the newest, and the one before it should the newest be damaged."""


def branch_part(total: int) -> str:
    """Name of the branch that ends at the position ``total``."""
    return f"branch{total}"


def state_folders(trunk: Path, part: str) -> list[Path]:
    """Folders of the states of ``part``, by rising position."""
    return sorted(trunk.glob(f"{part}-*"), key=position_of)


def position_of(state: Path) -> int:
    """Position that a state was saved at."""
    return int(state.name.rpartition("-")[2])


def saved_position(trunk: Path, part: str, at_most: int) -> int:
    """Position of the newest state of ``part`` no further than ``at_most``; 0 where there is none."""
    positions = [position_of(state) for state in state_folders(trunk, part)]
    return max((position for position in positions if position <= at_most), default=0)
