"""What a train job writes to the study folder: by one process, the others of a job on several devices write nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from trainlarge.config.group import Plain
from trainlarge.launch.job import RunningJob
from trainlarge.machine.probe import StepTiming
from trainlarge.machine.step_time import Round
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import remove_file, replacing_folder, write_json
from trainlarge.sweep.records import CurveRow, TrainRecord
from trainlarge.training.resume import TrainState, TrunkStates
from trainlarge.training.run_length import RunLength
from trainlarge.training.trunk_time import TrunkTime
from trainlarge.training.weight_change import Changes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellResult:
    """What is written of a cell that has ended."""

    record: TrainRecord
    """Content of ``record.json``."""
    rows: list[CurveRow]
    """The curve."""
    document_losses: dict[str, Plain] | None
    """Content of ``document_losses.json``; None where the run diverged."""
    save_predictions: Callable[[Path], None]
    """Writes the predictions for the evaluation set, where the task keeps them, into the cell's folder."""
    save_checkpoint: Callable[[Path], None]
    """Writes model and tokenizer into a folder that is there."""


@dataclass(frozen=True)
class FixedStepTime:
    """The step time by which a trunk turned seconds into steps, and what follows from it."""

    step_seconds: float
    """Steady-state step time."""
    is_of_this_device: bool
    """Whether it was measured as this process computes."""
    totals: dict[str, int]
    """Cell id -> position at which it ends."""


class Writer(Protocol):
    """Where a run puts its results; each call returns when they are on the disk."""

    def cell(self, cell: Cell, result: CellResult) -> None:
        """Write a cell that has ended: weights, then curve, then record, then the state."""

    def weight_changes(self, cell: Cell, changes: Changes | None) -> None:
        """Keep how far a cell that ends moved the weights of its checkpoint; None: it has none."""

    def state(self, part: str, state: TrainState, position: int) -> None:
        """Save a state of ``part`` at a position."""

    def delete_branch_states(self) -> None:
        """Remove the states of branches; those of the trunk stay, so that a larger budget can continue from there."""

    def round(self, timing: StepTiming, observed: Round) -> None:
        """Keep what was observed of the time of steps."""

    def step_time(self, time: TrunkTime, timing: StepTiming, length: RunLength, fixed: FixedStepTime) -> None:
        """Keep the fixed step time with trunk, cells and shape."""


class StudyWriter:
    """Writes to the study folder, each cell only while this process holds its lease.

    Args:
        job: the job, with the leases of its cells.
        states: the saved states of its trunk.
    """

    def __init__(self, job: RunningJob, states: TrunkStates) -> None:
        self.job, self.states = job, states

    def cell(self, cell: Cell, result: CellResult) -> None:
        self.job.require_lease(cell.id)
        folder = self.job.folder(cell.id)
        # Asked again at the end: a copy that wakes from a long pause must not replace what the new holder has written.
        with replacing_folder(folder.checkpoint, check=lambda: self.job.require_lease(cell.id)) as temporary:
            result.save_checkpoint(temporary)
        folder.write_metrics([row.to_json() for row in result.rows])
        if result.document_losses is None:
            remove_file(folder.document_losses)
        else:
            folder.write_document_losses(result.document_losses)
        result.save_predictions(folder.path)
        self.job.finish(cell.id, result.record)

    def weight_changes(self, cell: Cell, changes: Changes | None) -> None:
        if changes is not None:
            self.job.require_lease(cell.id)
            path = self.job.folder(cell.id).weight_errors
            write_json(path, {name: asdict(change) for name, change in changes.items()})

    def state(self, part: str, state: TrainState, position: int) -> None:
        try:
            self.states.save(part, state, position)
        except OSError as error:
            # Training can continue without this state; what cannot be written at the end will fail the cell.
            log.warning("the state after step %d was not saved: %s", state.step, error)

    def delete_branch_states(self) -> None:
        self.states.delete_branch_states()

    def round(self, timing: StepTiming, observed: Round) -> None:
        timing.add(observed)

    def step_time(self, time: TrunkTime, timing: StepTiming, length: RunLength, fixed: FixedStepTime) -> None:
        time.fix(fixed.step_seconds, fixed.is_of_this_device)
        for cell in self.job.cells:
            length.fix(fixed.totals[cell.id], self.job.folder(cell.id))
        if fixed.is_of_this_device:
            cells = [cell.id for cell in self.job.cells if cell.as_train.counts_seconds]
            timing.use_for(dict.fromkeys(cells, fixed.step_seconds))


class NoWriter:
    """Writes nothing: that of a process whose results another one writes."""

    def cell(self, cell: Cell, result: CellResult) -> None: ...

    def weight_changes(self, cell: Cell, changes: Changes | None) -> None: ...

    def state(self, part: str, state: TrainState, position: int) -> None: ...

    def delete_branch_states(self) -> None: ...

    def round(self, timing: StepTiming, observed: Round) -> None: ...

    def step_time(self, time: TrunkTime, timing: StepTiming, length: RunLength, fixed: FixedStepTime) -> None: ...
