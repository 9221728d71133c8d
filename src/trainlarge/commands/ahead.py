"""A look at the cells of a sweep, and at those of all sweeps of a study, before anything of it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainlarge.commands.chain import StageSweep
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.config.schema import StageConfig
from trainlarge.errors import UserError
from trainlarge.launch.check import check_cells, launcher_for
from trainlarge.launch.launcher import Launcher
from trainlarge.sweep.plan import NO_CELLS, Plan, look_ahead, make_cells
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned, PlannedCell
from trainlarge.sweep.store import Study

SWEEPER = "hydra/sweeper"
"""The key of the error about a sweeper that does not know all cells before the first one runs."""


@dataclass(frozen=True)
class Ahead:
    """Cells of one stage before they run."""

    study: Study
    """Where they would go."""
    plan: Plan
    """Cells, and jobs for those that are left to run."""
    launcher: Launcher
    """What would run them."""
    first: StageConfig
    """Configuration of one of them, which has what holds for the whole command."""
    planned: Planned
    """Train cells that the command will have trained by then."""

    @property
    def left(self) -> list[str]:
        """Ids of the cells that are left to run."""
        return [cell_id for job in self.plan.jobs for cell_id in job.cell_ids]

    def planned_after(self, steps: Mapping[str, int | None]) -> Planned:
        """What the next sweep can count on: the train cells that are left to run, too.

        Args:
            steps: id -> optimizer steps of a cell, where they are known.
        """
        cells = {cell.id: cell for cell in self.plan.cells} if self.plan.stage == "train" else {}
        left = {
            cell_id: PlannedCell(cells[cell_id].as_train, steps.get(cell_id), cell_id in self.plan.trained_on)
            for cell_id in (self.left if cells else [])
        }
        return {**self.planned, **left}


def look_at_stage(stage: str, arguments: list[str], planned: Planned = NOTHING_PLANNED) -> Ahead:
    """The cells of a stage's command line, read as a sweep, with all that is known to fail refused.

    Args:
        stage: ``train`` or ``compress``.
        arguments: Hydra flags and overrides.
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: for anything that the command itself would refuse.
    """
    sweeps = act_on_cells(stage, arguments, lambda _, configs: configs, planned)
    configs = [config for sweep in sweeps for config in sweep]
    if not configs:
        raise UserError("sweep", "no cells", NO_CELLS)
    launcher, study = launcher_for(configs), Study.named(configs[0].study)
    plan = look_ahead(study, stage, make_cells(stage, configs, planned), configs[0].redo, planned)
    ahead = Ahead(study, plan, launcher, configs[0], planned)
    left = frozenset(ahead.left)
    check_cells(launcher, study, stage, [cell for cell in plan.cells if cell.id in left], planned)
    return ahead


def check_stages(sweeps: Sequence[StageSweep], config_dir: str | None = None) -> None:
    """Refuse what is known to fail in any sweep of a study before its first one starts: it may train for days.

    Raises:
        UserError: one line per cause, with the number of cells.
    """
    planned = NOTHING_PLANNED
    for sweep in sweeps:
        try:
            with sweep.named_in_errors():
                planned = look_at_stage(sweep.stage, sweep.arguments(config_dir), planned).planned_after({})
        except UserError as error:
            if error.key == SWEEPER:
                # It chooses its next cells by the results of the last ones.
                return
            raise
