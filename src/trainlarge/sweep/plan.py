"""Cells to jobs: freeze every cell, skip what is done, group what shares work."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell, canonical_json
from trainlarge.sweep.proof import DamagedFile
from trainlarge.sweep.stages import description
from trainlarge.sweep.step_times import budgets_missed
from trainlarge.sweep.store import CellFolder, Study


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

    @property
    def done(self) -> int:
        """Cells that need not run."""
        return len(self.cells) - sum(len(job.cell_ids) for job in self.jobs)


def make_cells(stage: str, configs: list[dict[str, Any]]) -> list[Cell]:
    """Resolve configurations to cells, each once. The sweep that a cell comes from is no part of it.

    Raises:
        UserError: for a configuration that cannot work, or one cell with two values of what is no part of its identity.
    """
    resolve = description(stage).resolve
    cells: dict[Cell, Cell] = {}
    for config in configs:
        cell = Cell(stage, resolve({key: value for key, value in config.items() if key != "sweep"}))
        _check_same_impl(cells.setdefault(cell, cell), cell)
    return list(cells)


def _check_same_impl(first: Cell, other: Cell) -> None:
    """Refuse to drop ``other`` without a word where the user meant it to be another cell."""
    impl, changed = (cell.config.get("impl", {}) for cell in (first, other))
    for key in impl if impl != changed else ():
        if changed[key] != impl[key]:
            allowed = "one value for a cell: it is no part of its identity; use another study for the other"
            raise UserError(f"impl.{key}", f"{impl[key]},{changed[key]}", allowed)


def make_plan(study: Study, stage: str, cells: list[Cell], redo: bool = False) -> Plan:
    """Freeze ``cells`` in ``study`` and group those that are not done into jobs, the most costly first.

    A done cell whose record or curve is damaged counts as not done.

    Args:
        redo: run cells again that are done.
    """
    wrong = {} if redo else _damaged(study, stage, cells)
    for cell in cells:
        folder = study.folder(stage, cell.id)
        if redo or cell in wrong:
            folder.clear_result()
        folder.freeze(cell)
    if not redo:
        _reopen(study, {cell.id for cell in cells} & _missed(study, stage).keys())
    todo = [cell for cell in cells if not study.folder(stage, cell.id).is_done()]
    return _plan(stage, cells, todo, [f"{error.key} is {error.value}" for error in wrong.values()])


def look_ahead(study: Study, stage: str, cells: list[Cell], redo: bool = False) -> Plan:
    """The plan of ``cells`` as ``study`` is now; writes nothing.

    Args:
        redo: count cells that are done as to be run.
    """
    wrong = {} if redo else _damaged(study, stage, cells)
    missed = _missed(study, stage)
    again = wrong.keys() | {cell for cell in cells if cell.id in missed}
    return _plan(stage, cells, [
        cell for cell in cells if redo or cell in again or not study.folder(stage, cell.id).is_done()
    ])  # fmt: skip


def _damaged(study: Study, stage: str, cells: list[Cell]) -> dict[Cell, DamagedFile]:
    folders = ((cell, study.folder(stage, cell.id)) for cell in cells)
    return {cell: error for cell, folder in folders if folder.is_done() and (error := folder.damaged_result())}


def _plan(stage: str, cells: list[Cell], todo: list[Cell], damaged: Sequence[str] = ()) -> Plan:
    jobs = sorted(_group(stage, todo), key=lambda job: -job.cost)
    return Plan(stage, tuple(cells), tuple(jobs), tuple(damaged))


def _missed(study: Study, stage: str) -> dict[str, float]:
    """Cells that are done but got fewer steps than their seconds buy: they are trained on."""
    return budgets_missed(study) if stage == "train" else {}


def _reopen(study: Study, cell_ids: Set[str]) -> None:
    """Have train cells run again, and what was compressed of their checkpoints, which will be others."""
    done = [folder for cell_id in cell_ids if (folder := study.folder("train", cell_id)).is_done()]
    parents = {folder.id for folder in done}
    compressed = [folder for folder in study.folders("compress") if folder.is_done()] if done else []
    for folder in [*done, *(one for one in compressed if _parent(one) in parents)]:
        folder.clear_result()


def _parent(folder: CellFolder) -> str | None:
    """The train cell of a compress cell; None where its record is damaged, which has it run again anyway."""
    try:
        return folder.record().get("parent")
    except UserError:
        return None


def _group(stage: str, cells: list[Cell]) -> list[Job]:
    shared: dict[str, list[Cell]] = {}
    for cell in cells:
        shared.setdefault(canonical_json(description(stage).shared_work(cell.config)), []).append(cell)
    return [_job(stage, group) for group in shared.values()]


def _job(stage: str, cells: list[Cell]) -> Job:
    return Job(stage, tuple(cell.id for cell in cells), sum(description(stage).cost(cell.config) for cell in cells))
