"""Times the steps of several shapes in turns, before their jobs start, so that what disturbs one meets all alike."""

from __future__ import annotations

import logging
import time

from trainlarge.errors import UserError
from trainlarge.machine.resources import Resources
from trainlarge.machine.step_time import is_settled
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.store import Study
from trainlarge.training.context import TrainContext
from trainlarge.training.trunk_time import patience

log = logging.getLogger(__name__)


def time_in_turns(study: Study, cells: list[Cell], resources: Resources | None = None, least: int = 0) -> None:
    """Time a round of each shape in turn until all are settled or the time that their budgets allow is used up.

    Args:
        cells: one for each shape, all of this process's device.
        resources: cores and GPUs that each job will have; None: the whole machine.
        least: rounds to add to each shape in any case.
    """
    deadline = time.monotonic() + sum(patience([cell]) for cell in cells)
    contexts = [made for cell in cells if (made := _context(study, cell, resources))]
    for _ in range(least):
        _turn(contexts)
    while contexts and time.monotonic() < deadline:
        contexts = [context for context in contexts if not is_settled(context.timing.rounds())]
        _turn(contexts)


def _turn(contexts: list[TrainContext]) -> None:
    for context in contexts:
        context.settle(least=1)


def _context(study: Study, cell: Cell, resources: Resources | None) -> TrainContext | None:
    """What the cell's job will set up; None where it cannot, which will be the error of that job."""
    try:
        return TrainContext(study, cell.as_train, resources)
    except UserError as error:
        log.error("%s", error)
        return None
