"""Times the steps of several shapes in turns, before their jobs start, so that what disturbs one meets all alike."""

from __future__ import annotations

import logging
import time

from trainlarge.errors import UserError
from trainlarge.machine.resources import Resources
from trainlarge.machine.step_time import is_settled
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.store import Study
from trainlarge.training.setup import Setup
from trainlarge.training.trunk_time import patience

log = logging.getLogger(__name__)


def time_in_turns(study: Study, cells: list[Cell], resources: Resources | None = None, least: int = 0) -> None:
    """A round of each shape, again and again until all are settled or the patience for their budgets is at its end.

    Args:
        cells: one for each shape, all of this process's device.
        resources: cores and GPUs that each job will have; None: the whole machine.
        least: rounds to add to each shape in any case.
    """
    deadline = time.monotonic() + sum(patience([cell]) for cell in cells)
    setups = [made for cell in cells if (made := _setup(study, cell, resources))]
    for _ in range(least):
        _turn(setups)
    while setups and time.monotonic() < deadline:
        setups = [setup for setup in setups if not is_settled(setup.timing.rounds())]
        _turn(setups)


def _turn(setups: list[Setup]) -> None:
    for setup in setups:
        setup.settle(least=1)


def _setup(study: Study, cell: Cell, resources: Resources | None) -> Setup | None:
    """What the cell's job will set up; None where that cannot be, which the job will tell."""
    try:
        return Setup(study, cell.as_train, resources)
    except UserError as error:
        log.error("%s", error)
        return None
