"""The step time by which a trunk turns seconds into steps: open until its first branch leaves, then fixed.

It is kept with the trunk, so that a resume gives the same bits and cells that share a trunk agree. A cell that is
trained alone and one that shares a job give the same bits if the same step time was fixed. With budgets in steps,
tokens or FLOPs that is always so. With budgets in seconds the step time is measured: the smaller the first budget of a
job, the earlier it is fixed, on fewer observations. It is the time of the shape, not of the cells, and it only falls
towards the quiet one, so that runs of one study differ by what is left to observe: a few percent on a quiet machine.

Where a later observation contradicts the fixed time (:mod:`trainlarge.sweep.step_times`), the next run of the trunk
forgets it and measures again. States of the trunk stay, as its rates do not depend on budgets; with
``schedule.horizon`` in seconds they do, and the trunk is trained again. So is all behind the warm-up with
``schedule=matched``, whose decay depends on the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainlarge.config.budget import SECONDS, parse_budget
from trainlarge.config.schema import TrainConfig
from trainlarge.machine.probe import StepTiming
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import make_folder, refuse_links, remove, remove_file
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.step_times import is_contradicted, read_measured
from trainlarge.sweep.store import CellFolder

PATIENCE_SECONDS = 20.0
"""At most so long steps are timed on purpose before the first of a run, and again before the step time is fixed, and no
longer than the largest budget in seconds. Where other programs work and rest, a quiet moment takes so long to come; on
a quiet machine a second is enough."""


@dataclass(frozen=True)
class FixedTime:
    """Content of ``step_time.json``; ``steps.json`` of a cell has it too."""

    step_seconds: float
    """Step time by which seconds become steps."""
    probe: str | None = None
    """Name of the step times that it is of; None where it was measured elsewhere, or is older than this key."""


class TrunkTime:
    """The fixed step time of one trunk, on disk.

    Args:
        trunk: folder of the trunk's states.
        timing: step times of the shape, as this process computes it.
    """

    def __init__(self, trunk: Path, timing: StepTiming) -> None:
        self.trunk, self.timing = trunk, timing
        self._path, self._of_before = trunk / "step_time.json", trunk / "horizon.json"

    def fixed(self, cells: list[CellFolder]) -> tuple[float, bool] | None:
        """The fixed step time in seconds, and whether it is that of this device; None where none is.

        Args:
            cells: of the job: before step times were kept with trunks, each had its own.
        """
        kept = self._kept(cells)
        if kept is None:
            return None
        for cell in cells:
            # Steps by another time than the trunk's now: its cell was not corrected yet when the trunk was.
            of_cell = read_measured(FixedTime, cell.steps)
            if of_cell is None or of_cell.step_seconds != kept.step_seconds:
                remove_file(cell.steps)
        return kept.step_seconds, kept.probe in (self.timing.name, None)

    def is_contradicted(self, cells: list[CellFolder]) -> bool:
        """Whether what was observed since proves the fixed time too large."""
        kept = self._kept(cells)
        if kept is None:
            return False
        name = kept.probe or self.timing.name
        estimate = StepTiming.of_file(self.timing.path.with_name(f"{name}.json")).estimate()
        return estimate is not None and is_contradicted(kept.step_seconds, estimate)

    def forget(self, cells: list[CellFolder], with_states: bool) -> None:
        """Open it again, for these cells too.

        Raises:
            UserError: where states would have to be removed through a link.
        """
        if with_states:
            refuse_links(self.trunk, inside=self.trunk.parents[1])
            remove(self.trunk)
        for path in (self._path, self._of_before, *(cell.steps for cell in cells)):
            remove_file(path)

    def fix(self, step_seconds: float, is_of_this_device: bool) -> None:
        """Keep it with the trunk."""
        if read_measured(FixedTime, self._path) is None:
            make_folder(self.trunk, inside=self.trunk.parents[1])
            probe = {"probe": self.timing.name} if is_of_this_device else {}
            write_sealed(self._path, {"step_seconds": step_seconds, **probe})

    def _kept(self, cells: list[CellFolder]) -> FixedTime | None:
        paths = (self._path, self._of_before, *(cell.steps for cell in cells))
        kept = (read_measured(FixedTime, path) for path in paths)
        return next((fixed for fixed in kept if fixed is not None), None)


def trunk_counts_seconds(config: TrainConfig) -> bool:
    """Whether the trunk's rates depend on the step time, so that it must be fixed before the first step."""
    horizon = config.schedule.horizon
    return config.clock == "modelled" and bool(horizon) and parse_budget(horizon).unit == SECONDS


def patience(cells: list[Cell]) -> float:
    """Seconds that may be spent on timing steps for these cells; 0 where no budget is in seconds."""
    budgets = [parse_budget(cell.as_train.budget) for cell in cells if cell.as_train.counts_seconds]
    largest = max((budget.value for budget in budgets if budget.unit == SECONDS), default=0.0)
    return min(PATIENCE_SECONDS, largest)
