"""From configurations to finished cells: plan, launch, and report how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console

from trainlarge.config.schema import StageConfig
from trainlarge.errors import UserError
from trainlarge.launch.check import check_cells, launcher_for
from trainlarge.launch.launcher import Ending, Launcher
from trainlarge.launch.progress import cells_in_words, plan_in_words
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.history import remember_command
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.plan import NO_CELLS, Plan, make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.step_times import budgets_missed, missed_in_words
from trainlarge.sweep.store import CellFolder, Study

SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    study: Study
    """The study."""
    plan: Plan
    """What was asked for and what had to run."""
    failed: tuple[str, ...]
    """Ids of cells that are not done; empty while they are in a cluster's queue."""
    is_submitted: bool = False
    """Whether jobs were left to a cluster, which runs them after the command has returned."""
    had_failed: bool = False
    """Whether every cell that was left to run had failed before."""
    stop_reason: str | None = None
    """Why jobs were not started; None where all were."""

    @property
    def missed(self) -> dict[str, float]:
        """Done train cells of it with fewer steps than their seconds buy -> by what factor, as far as is known now."""
        asked = {cell.id for cell in self.plan.cells} if self.plan.stage == "train" else set()
        missed = budgets_missed(self.study) if asked else {}
        return {one: missed[one] for one in missed.keys() & asked if self.study.folder("train", one).is_done()}


class CellsFailedError(RuntimeError):
    """Some cells did not finish."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(f"{len(outcome.failed)} of {len(outcome.plan.cells)} cells are not done")


def run_cells(stage: str, configs: list[StageConfig], console: Console, command: str | None = None) -> Outcome:
    """Run one cell for each configuration, those that are done excepted.

    A cell that another process runs is waited for, unless ``launcher.wait`` is false.

    Args:
        command: the command line that asked for them; None where Python code did.

    Raises:
        UserError: for a configuration that cannot work, before anything is started.
        CellsFailedError: when all is over and some cells are not done.
    """
    if not configs:
        raise UserError("sweep", "no cells", NO_CELLS)
    first = configs[0]
    study = Study.named(first.study)
    launcher = launcher_for(configs)
    launcher.check()
    check = partial(check_cells, launcher, study, stage)
    plan = make_plan(study, stage, make_cells(stage, configs), redo=first.redo, check=check)
    if plan.jobs and command:
        remember_command(study, stage, command, [cell_id for job in plan.jobs for cell_id in job.cell_ids])
    return run_plan(study, replace(plan, command=command), launcher, console)


def redo_cell(folder: CellFolder, console: Console, command: str | None = None) -> Outcome:
    """Run a frozen cell again, whatever its state.

    Raises:
        UserError: when its configuration is damaged, or another process holds it.
        CellsFailedError: when it is not done in the end.
    """
    study, frozen = Study(folder.path.parents[1]), folder.cell()
    # The folder of the study may have been renamed.
    cell = Cell(frozen.stage, replace(frozen.config, study=study.name))
    if is_held(folder.path):
        raise UserError("cell", cell.id, "a cell that no process is running")
    return _run_frozen(study, [cell], console, command, redo=True)


def run_missed(outcome: Outcome, console: Console) -> Outcome:
    """Train on those cells of a command that got fewer steps than their seconds buy.

    Returns:
        How that ended, for these cells.
    """
    missed = outcome.missed
    cells = [cell for cell in outcome.plan.cells if cell.id in missed]
    try:
        return _run_frozen(outcome.study, cells, console, outcome.plan.command, redo=False)
    except CellsFailedError as failure:
        return failure.outcome


def _run_frozen(study: Study, cells: list[Cell], console: Console, command: str | None, redo: bool) -> Outcome:
    """Run cells of one stage whose configurations are known already."""
    stage, launcher = cells[0].stage, launcher_for([cell.config for cell in cells])
    launcher.check()
    plan = make_plan(study, stage, cells, redo=redo, check=partial(check_cells, launcher, study, stage))
    return run_plan(study, replace(plan, command=command), launcher, console)


def run_plan(study: Study, plan: Plan, launcher: Launcher, console: Console) -> Outcome:
    """Run what a plan has left to run.

    Raises:
        CellsFailedError: when all is over and some cells are not done.
    """
    stage = plan.stage
    for damaged in plan.damaged:
        console.print(f"runs again: {damaged}", highlight=False, markup=False, soft_wrap=True)
    console.print(plan_in_words(plan, study), highlight=False, markup=False, soft_wrap=True)
    left = [study.folder(stage, cell_id) for job in plan.jobs for cell_id in job.cell_ids]
    had_failed = all(folder.status().state is State.FAILED for folder in left)
    ending = launcher.run(study, plan, console) if plan.jobs else Ending()
    if ending.is_submitted:
        return Outcome(study, plan, (), is_submitted=True, had_failed=had_failed)
    failed = tuple(cell.id for cell in plan.cells if not study.folder(stage, cell.id).is_done())
    outcome = Outcome(study, plan, failed, stop_reason=ending.stop_reason)
    if missed := outcome.missed:
        console.print(missed_in_words(missed), highlight=False, soft_wrap=True)
    if failed:
        raise CellsFailedError(outcome)
    return outcome


def report_failures(outcome: Outcome, console: Console) -> None:
    """Name what did not finish and why, what was not run, and the command that shows more."""
    described = {cell_id: _what_happened(outcome, cell_id) for cell_id in outcome.failed}
    lines = {cell_id: text for cell_id, text in described.items() if text}
    for text in list(lines.values())[:SHOWN_FAILURES]:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    if len(lines) > SHOWN_FAILURES:
        console.print(f"... and {len(lines) - SHOWN_FAILURES} more", highlight=False)
    not_run = len(described) - len(lines)
    if not_run or outcome.stop_reason:
        why = f": {outcome.stop_reason}" if outcome.stop_reason else ""
        console.print(f"not run: {cells_in_words(not_run)}{why}", highlight=False, soft_wrap=True)
    example = next(iter(lines), outcome.failed[0])
    console.print(f"see why: trainlarge show {example} --study {outcome.study.name}", highlight=False, soft_wrap=True)


def _what_happened(outcome: Outcome, cell_id: str) -> str:
    """A line on a cell that was run and is not done; empty for one that was not run."""
    folder = outcome.study.folder(outcome.plan.stage, cell_id)
    status = folder.status()
    if is_held(folder.path):
        return f"{status.state} {cell_id}: held by another process, which was not waited for"
    if status.state not in (State.FAILED, State.PREEMPTED):
        return ""
    retries = f" (attempts {status.attempts}, retries {status.retries})" if status.retries else ""
    return f"{status.state} {cell_id}: {status.error}{retries}"
