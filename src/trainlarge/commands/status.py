"""``trainlarge status``: where a study stands, read off its files: states, progress, failures, what to do next."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainlarge.commands.call import Call
from trainlarge.commands.studies import existing_study
from trainlarge.commands.terminal import console
from trainlarge.commands.verbs import verb_parser
from trainlarge.config import typed_json
from trainlarge.config.group import Plain
from trainlarge.config.launcher import LauncherConfig
from trainlarge.errors import UserError
from trainlarge.launch.hang import NO_PROGRESS_FOR, hang_in_words
from trainlarge.launch.launcher import ON_ITS_WAY, JobState
from trainlarge.launch.registry import submitted_jobs
from trainlarge.sweep.collection import collection_paused
from trainlarge.sweep.history import commands_of
from trainlarge.sweep.lease import Worker, is_held, worker_of
from trainlarge.sweep.proof import DamagedFileError
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.status import NO_PROGRESS, CellProgress, State, Status
from trainlarge.sweep.step_times import budgets_missed
from trainlarge.sweep.store import CellFolder, Study

REPORT = "report/index.html"
"""The page of a study's report, in its folder."""
STALE = "stale"
"""A running cell whose lease no process holds any more: its heartbeat has stopped, and it can be claimed."""
KINDS = (*(str(state) for state in State), STALE)
"""What a cell can be, in the order in which it is shown."""


def main(call: Call) -> int:
    """Print where a study stands, once or until it is done."""
    # It shows what this module reads.
    from trainlarge.commands.status_view import show, watch

    options = parser().parse_args(call.arguments)
    look = watch if options.watch else show
    look(existing_study(options.study), console(), options.json)
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("status")
    made.add_argument("study")
    made.add_argument("--watch", action="store_true", help="refresh every 2 s until all cells are done")
    made.add_argument("--json", action="store_true", help="for programs: one line of JSON per refresh")
    return made


@dataclass(frozen=True)
class CellState:
    """One cell."""

    stage: str
    """Its stage."""
    cell: str
    """Its id."""
    state: str
    """One of ``KINDS``."""
    attempts: int
    """How often it was started."""
    retries: int = 0
    """How many of these starts came after a failure."""
    error: str | None = None
    """What the error of the last attempt says, or why the cell was not run."""
    diverged: bool = False
    """Done, with the result that its loss stopped being a number."""
    progress: CellProgress = NO_PROGRESS
    """Of a running cell: how far it is."""
    heartbeat_age: float | None = None
    """Of a running cell: seconds since its last heartbeat, by this machine's clock."""
    progress_age: float | None = None
    """Of the running cell that a job is at: seconds since the job last showed that it works, by the same clock."""
    hang: str | None = None
    """Of that cell: ``no progress for 6 min (process 12 on n1)``, where its process hangs or was stopped."""


@dataclass(frozen=True)
class StudyState:
    """All cells of a study."""

    study: Study
    """The study."""
    cells: tuple[CellState, ...]
    """Train cells, then compress cells, each in the order of their ids."""
    submitted: dict[str, Counter[JobState]] = field(default_factory=dict)
    """Launcher that submits jobs -> how many of its jobs are in which state."""
    missed: dict[str, float] = field(default_factory=dict)
    """Train cells that are done but got too few steps for their seconds -> by what factor."""

    def counts(self) -> dict[str, Counter[str]]:
        """Stage -> state -> number of cells, for the stages that have cells."""
        counted: dict[str, Counter[str]] = {}
        for cell in self.cells:
            counted.setdefault(cell.stage, Counter())[cell.state] += 1
        return counted

    def those(self, *states: str) -> list[CellState]:
        """The cells in these states."""
        return [cell for cell in self.cells if cell.state in states]

    def not_run(self) -> Counter[str]:
        """Why cells were left to a later command -> how many."""
        return Counter(cell.error for cell in self.those(State.QUEUED) if cell.error)

    def hangs(self) -> list[str]:
        """What is said of each job that hangs, with the cell that it is at, and of those that were ended for it."""
        now = [f"{cell.hang}: cell {cell.cell}" for cell in self.cells if cell.hang]
        ended = [cell for cell in self.those(State.PREEMPTED) if cell.error and cell.error.startswith(NO_PROGRESS_FOR)]
        return [*now, *(f"{cell.error}: cell {cell.cell}, whose process was ended" for cell in ended)]

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to do."""
        return len(self.those(State.DONE)) == len(self.cells)

    def commands(self) -> list[str]:
        """What a person would do now."""
        name, failed = self.study.name, self.those(State.FAILED)
        commands = [f"trainlarge show {failed[0].cell} --study {name}"] if failed else []
        commands += self._commands_to_continue()
        if not commands and not self.is_done:
            return [f"trainlarge status {name} --watch"]
        return commands or self._commands_when_done()

    def _commands_to_continue(self) -> list[str]:
        """The last command of each stage with cells that no process runs, unless a submitted job may have them."""
        waiting = (State.MISSING, State.QUEUED, State.PREEMPTED) if not self._has_jobs_on_their_way else ()
        left: dict[str, set[str]] = {"train": set(self.missed)} if self.missed else {}
        for cell in self.those(*waiting, State.FAILED, STALE):
            left.setdefault(cell.stage, set()).add(cell.cell)
        commands: list[str] = []
        for stage, cells in left.items():
            given, others = commands_of(self.study, stage, cells)
            commands += [*given, *([self._command_for(stage, min(others))] if others else [])]
        return list(dict.fromkeys(commands))

    def _command_for(self, stage: str, cell: str) -> str:
        """A command for a cell of which no command is known."""
        is_swept = stage in _stages_of_sweep(self.study.name)
        return f"trainlarge run {self.study.name}" if is_swept else self.study.folder(stage, cell).redo_command

    def _commands_when_done(self) -> list[str]:
        """The sweep that comes next, the report, or nothing where that is as new as the results."""
        name, stages = self.study.name, self.counts()
        swept = _stages_of_sweep(name)
        # Of several sweeps of one stage, files do not say whether each has run; a run ends with the report.
        is_chain = len(swept) > len(set(swept)) and not self.report
        if is_chain or any(stage not in stages for stage in swept):
            return [f"trainlarge run {name}"]
        return [f"trainlarge report {name}"] if stages and not self.report else []

    @property
    def report(self) -> Path | None:
        """The page of a report that is newer than all results; None where there is none."""
        page = self.study.path / REPORT
        folders = (self.study.folder(cell.stage, cell.cell) for cell in self.those(State.DONE))
        try:
            written = page.stat().st_mtime
            return page if all(folder.record_path.stat().st_mtime <= written for folder in folders) else None
        except OSError:
            return None

    @property
    def _has_jobs_on_their_way(self) -> bool:
        """Whether submitted jobs wait or run, or may do so."""
        return any(not ON_ITS_WAY.isdisjoint(jobs) for jobs in self.submitted.values())

    def to_json(self) -> dict[str, object]:
        """Plain data: numbers of all cells, and every cell that is running, stale or failed."""
        stages = {
            stage: {"cells": counts.total(), **{kind: counts[kind] for kind in KINDS}, "diverged": self.diverged(stage)}
            for stage, counts in self.counts().items()
        }
        return {
            "study": self.study.name,
            "path": str(self.study.path),
            "done": self.is_done,
            "stages": stages,
            "running": [_plain(cell) for cell in self.those(State.RUNNING, STALE)],
            "failed": [_plain(cell) for cell in self.those(State.FAILED)],
            "diverged": [cell.cell for cell in self.cells if cell.diverged],
            "budget_missed": self.missed,
            "not_run": dict(self.not_run()),
            "commands": self.commands(),
            **{launcher: dict(jobs) for launcher, jobs in self.submitted.items()},
        }

    def diverged(self, stage: str) -> int:
        """How many done cells of a stage have diverged."""
        return sum(cell.diverged for cell in self.cells if cell.stage == stage)


def _stages_of_sweep(name: str) -> list[str]:
    """The stage of each sweep file of the study of that name; none where there are no such files."""
    # It imports Hydra, which takes longer than all that most states need.
    from trainlarge.commands.sweep_files import sweep_files

    try:
        return [file.stage for file in sweep_files(name)]
    except UserError:
        return []


def read_state(study: Study) -> StudyState:
    """Where the cells of a study stand now; nothing is written."""
    with collection_paused():
        cells = tuple(cell_state(folder) for stage in STAGES for folder in study.folders(stage))
    done = {cell.cell for cell in cells if cell.stage == "train" and cell.state == State.DONE}
    cells = tuple(_with_work(study, cells))
    missed = {cell: ratio for cell, ratio in budgets_missed(study).items() if cell in done}
    return StudyState(study, cells, submitted_jobs(study), missed)


def _plain(cell: CellState) -> dict[str, Plain]:
    return typed_json.plain(cell) | {"progress": cell.progress.to_json()}


def cell_state(folder: CellFolder) -> CellState:
    """Where one cell stands now."""
    status = folder.status()
    if status.state is State.RUNNING:
        return _running(folder, status)
    if status.state is State.DONE:
        return _done(folder, status)
    return CellState(folder.stage, folder.id, str(status.state), status.attempts, status.retries, status.error)


def _done(folder: CellFolder, status: Status) -> CellState:
    try:
        diverged = folder.record_data().get("diverged") is True
    except DamagedFileError as damaged:
        error = f"{damaged.key} is {damaged.value}; to make it again: {folder.redo_command}"
        return CellState(folder.stage, folder.id, str(State.FAILED), status.attempts, status.retries, error)
    except UserError:
        # Of another version: whole, but not for us to read.
        diverged = False
    return CellState(folder.stage, folder.id, str(State.DONE), status.attempts, status.retries, diverged=diverged)


def _running(folder: CellFolder, status: Status) -> CellState:
    state = str(State.RUNNING) if _is_alive(folder.path) else STALE
    cell = CellState(folder.stage, folder.id, state, status.attempts, status.retries)
    return replace(cell, progress=status.progress, heartbeat_age=_heartbeat_age(folder.path))


def _with_work(study: Study, cells: Sequence[CellState]) -> Iterator[CellState]:
    """The cells, those that a job is at with what is known of its work: of the cells that it holds, the newest."""
    folders = {cell.cell: study.folder(cell.stage, cell.cell) for cell in cells if cell.state in (State.RUNNING, STALE)}
    workers = {cell: worker for cell, folder in folders.items() if (worker := _worker_of(folder.path))}
    worked = {cell: folders[cell].status().updated for cell in workers}
    at = {(workers[cell].pid, workers[cell].host): cell for cell in sorted(worked, key=lambda cell: worked[cell])}
    for cell in cells:
        worker = workers.get(cell.cell)
        if worker is None or at[worker.pid, worker.host] != cell.cell:
            yield cell
            continue
        age = max(0.0, time.time() - worked[cell.cell])
        limit = _hang_seconds(folders[cell.cell])
        hang = hang_in_words(age, worker.pid, worker.host) if limit and age >= limit else None
        yield replace(cell, progress_age=age, hang=hang)


def _worker_of(cell: Path) -> Worker | None:
    try:
        return worker_of(cell)
    except OSError:
        return None


def _hang_seconds(folder: CellFolder) -> float:
    try:
        return folder.cell().config.launcher.hang_seconds
    except UserError:
        return LauncherConfig.hang_seconds


def _is_alive(cell: Path) -> bool:
    try:
        return is_held(cell)
    except OSError:
        # A folder that cannot be asked, such as a read-only copy, is no sign of a death.
        return True


def _heartbeat_age(cell: Path) -> float | None:
    try:
        renewed = max((path.stat().st_mtime for path in (cell / "lease").glob("[0-9]*.json")), default=None)
    except FileNotFoundError:
        return None
    return None if renewed is None else max(0.0, time.time() - renewed)


def status_json(state: StudyState) -> str:
    """The state as one line of JSON."""
    return json.dumps(state.to_json(), allow_nan=False)
