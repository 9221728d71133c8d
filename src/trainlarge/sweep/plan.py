"""Cells to jobs: freeze every cell, skip what is done, group what shares work."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache, partial

from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Plain
from trainlarge.config.schema import StageConfig
from trainlarge.errors import UserError
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import refuse_links
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.proof import DamagedFileError
from trainlarge.sweep.stages import STAGES, stage_named
from trainlarge.sweep.step_times import budgets_missed
from trainlarge.sweep.store import WRITTEN_BY_JOBS, CellFolder, Study
from trainlarge.sweep.unread import refuse_unread

NO_CELLS = "must have at least one cell: check sweep.blocks, sweep.where, sweep.exclude and the checkpoints"
"""What is wrong with a sweep from which nothing is left, as an error says it."""


@dataclass(frozen=True)
class Job:
    """Cells that share work and so run in one process."""

    stage: str
    """Stage of all its cells."""
    cell_ids: tuple[str, ...]
    """The cells to run, in the order of the sweep."""
    cost: float
    """Work of all cells, in the stage's own unit."""


@dataclass(frozen=True)
class Plan:
    """What a command is about to do."""

    stage: str
    """The stage of the cells."""
    cells: tuple[Cell, ...]
    """All cells that were asked for."""
    jobs: tuple[Job, ...]
    """What is left to run, longest first."""
    damaged: tuple[str, ...] = ()
    """What is wrong with cells that were done and are made again."""
    command: str | None = None
    """The command line that asked for them; None where Python code did."""
    trained_on: frozenset[str] = frozenset()
    """Train cells that are done and will have other weights: their budget was missed, or that of what they started
    from."""

    @property
    def done(self) -> int:
        """Cells that need not run."""
        return len(self.cells) - sum(len(job.cell_ids) for job in self.jobs)


def make_cells(stage: str, configs: Sequence[StageConfig], planned: Planned = NOTHING_PLANNED) -> list[Cell]:
    """Resolve configurations to cells, each once.

    Args:
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: for configurations that cannot work, one line per cause, or one cell with two values of what is no
            part of its identity.
    """
    resolve, causes = stage_named(stage).resolve, Causes(len(configs))
    cells: dict[Cell, Cell] = {}
    for config in configs:
        with causes.of():
            refuse_unread(config)
            cell = Cell(stage, resolve(config, planned))
            _check_same_impl(cells.setdefault(cell, cell), cell)
    causes.raise_any()
    return list(cells)


def _check_same_impl(first: Cell, other: Cell) -> None:
    """Refuse to drop ``other`` without a word where the user meant it to be another cell."""
    impl, changed = first.config.impl, other.config.impl
    if impl == changed:
        return
    key = next(key for key, value in impl.plain.items() if changed.plain[key] != value)
    allowed = "one value per cell: it is not part of the cell's id; use another study for the other value"
    raise UserError(f"impl.{key}", f"{impl.plain[key]},{changed.plain[key]}", allowed)


def make_plan(
    study: Study,
    stage: str,
    cells: list[Cell],
    redo: bool = False,
    check: Callable[[list[Cell]], None] | None = None,
) -> Plan:
    """Freeze ``cells`` in ``study`` and group those that are not done into jobs, the most costly first.

    A done cell whose record or curve is damaged counts as not done, and so does one whose checkpoint was trained again
    and has other weights now.

    Args:
        redo: run cells again that are done.
        check: is given the cells that are to run, before anything is written.

    Raises:
        UserError: from ``check``, or where a link is in the place of a folder that would be written into.
    """
    for name in WRITTEN_BY_JOBS:
        refuse_links(study.path / name, inside=study.path)
    done, wrong = (set[str](), dict[str, DamagedFileError]()) if redo else _done(study, stage, cells)
    missed = set[str]() if redo else {cell.id for cell in cells} & _missed(study, stage).keys()
    if check:
        check([cell for cell in cells if cell.id not in done - missed])
    for cell in cells:
        folder = study.folder(stage, cell.id)
        if redo or cell.id in wrong:
            folder.clear_result()
        folder.freeze(cell)
    _reopen(study, missed)
    return _plan(stage, cells, done - missed, [f"{error.key} is {error.value}" for error in wrong.values()])


def look_ahead(
    study: Study, stage: str, cells: list[Cell], redo: bool = False, planned: Planned = NOTHING_PLANNED
) -> Plan:
    """The plan of ``cells`` as ``study`` is now; writes nothing.

    Args:
        redo: count cells that are done as to be run.
        planned: train cells whose checkpoints will be there; they count as done.
    """
    done, _ = (set[str](), dict[str, DamagedFileError]()) if redo else _done(study, stage, cells)
    again = done & (_missed(study, stage).keys() | _of_trained_on(cells, planned))
    by_then = planned.keys() & {cell.id for cell in cells} if stage == "train" and not redo else set[str]()
    plan = _plan(stage, cells, (done - again) | by_then, planned=planned)
    return replace(plan, trained_on=frozenset(again - by_then)) if stage == "train" else plan


def _of_trained_on(cells: list[Cell], planned: Planned) -> set[str]:
    """The cells that start from one whose weights will be others."""
    again = {cell_id for cell_id, cell in planned.items() if cell.is_trained_on}
    return {cell.id for cell in cells if cell.config.checkpoint in again}


def _done(study: Study, stage: str, cells: list[Cell]) -> tuple[set[str], dict[str, DamagedFileError]]:
    """Ids of the cells that are done and whole, and of those that are done and damaged, with what is wrong."""
    folders = [folder for cell in cells if (folder := study.folder(stage, cell.id)).is_done()]
    weights_of = cache(partial(_weights, study))
    wrong = {folder.id: error for folder in folders if (error := folder.damaged_result(weights_of))}
    return {folder.id for folder in folders} - wrong.keys(), wrong


def _weights(study: Study, train_cell: str) -> str | None:
    """SHA-256 of the weights of a train cell; None where it is not done, or its record cannot be read."""
    try:
        folder = study.folder("train", train_cell)
        return folder.weights_digest() if folder.is_done() else None
    except UserError:
        return None


def _plan(
    stage: str,
    cells: list[Cell],
    done: set[str],
    damaged: Sequence[str] = (),
    planned: Planned = NOTHING_PLANNED,
) -> Plan:
    jobs = _group(stage, [cell for cell in cells if cell.id not in done], planned)
    return Plan(stage, tuple(cells), tuple(sorted(jobs, key=lambda job: -job.cost)), tuple(damaged))


def _missed(study: Study, stage: str) -> dict[str, float]:
    """Cells that are done but got fewer steps than their seconds buy: they are trained on."""
    return budgets_missed(study) if stage == "train" else {}


def _reopen(study: Study, cell_ids: Set[str]) -> None:
    """Have train cells run again, and all that was made of their checkpoints, which will be others."""
    done = [folder for cell_id in cell_ids if (folder := study.folder("train", cell_id)).is_done()]
    others = [folder for stage in STAGES for folder in study.folders(stage) if folder.is_done()] if done else []
    children: dict[Plain, list[CellFolder]] = {}
    for folder in others:
        children.setdefault(_parent(folder), []).append(folder)
    while done:
        folder = done.pop()
        done += children.pop(folder.id, [])
        folder.clear_result()


def _parent(folder: CellFolder) -> Plain:
    """The train cell that a cell started from.

    None for another start, and where the record is damaged, which has the cell run again anyway.
    """
    try:
        config = folder.record_data()["config"]
    except UserError:
        return None
    return config.get("checkpoint") if isinstance(config, dict) else None


def _group(stage: str, cells: list[Cell], planned: Planned) -> list[Job]:
    shared: dict[str, list[Cell]] = {}
    for cell in cells:
        shared.setdefault(canonical_json(stage_named(stage).shared_work(cell.config)), []).append(cell)
    cost = stage_named(stage).cost
    return [
        Job(stage, tuple(cell.id for cell in group), sum(cost(cell.config, planned) for cell in group))
        for group in shared.values()
    ]
