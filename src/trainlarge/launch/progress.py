"""Progress of the running jobs, read from the study folder: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from trainlarge.config.budget import parse_budget
from trainlarge.config.schema import CompressConfig
from trainlarge.data.progress import preparations
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.status import CellProgress, State, Status
from trainlarge.sweep.store import Study

BAR_SECONDS = 0.5
LINE_SECONDS = 20.0


def cells_in_words(count: int) -> str:
    """``1 cell``, or ``2 cells``."""
    return "1 cell" if count == 1 else f"{count} cells"


def jobs_in_words(count: int) -> str:
    """``1 job``, or ``2 jobs``."""
    return "1 job" if count == 1 else f"{count} jobs"


def plan_in_words(plan: Plan, study: Study, title: str | None = None) -> str:
    """``train: 12 cells, 3 done, 1 job to run in studies/mine``; it begins with ``title``, or the stage."""
    cells, jobs = cells_in_words(len(plan.cells)), jobs_in_words(len(plan.jobs))
    return f"{title or plan.stage}: {cells}, {plan.done} done, {jobs} to run in {study.path}"


class ProgressWatcher:
    """Shows which cell each job is at, its loss, its speed and the time left."""

    def __init__(self, study: Study, plan: Plan, console: Console) -> None:
        self._study, self._plan, self._console = study, plan, console
        self._cells = {cell.id: cell for cell in plan.cells}
        # A dumb terminal cannot draw over what it has drawn.
        self._has_bars = console.is_terminal and not console.is_dumb_terminal
        self._next_look = 0.0
        self._watched: list[Job] = []
        self._done: set[str] = set()
        self._has_said_why = False
        self._bars: dict[Job, TaskID] = {}
        self._preparing: list[TaskID] = []
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._total = self._progress.add_task(
            f"[bold]{plan.stage}", total=len(plan.cells), completed=plan.done, note="cells"
        )

    def __enter__(self) -> ProgressWatcher:
        if self._has_bars:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._has_bars:
            self._progress.stop()

    def update(self, running: list[Job], elsewhere: list[Job]) -> None:
        """Read the statuses of the running jobs, ours and those of other processes, at most twice per second."""
        if not running and elsewhere:
            self._say_what_we_wait_for(elsewhere)
        running = running + elsewhere
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + (BAR_SECONDS if self._has_bars else LINE_SECONDS)
        done = self._count_done(running)
        self._progress.update(self._total, completed=done)
        for job in set(self._bars) - set(running):
            self._progress.remove_task(self._bars.pop(job))
        for job in running:
            self._show(job, done)
        if self._has_bars:
            self._show_preparations()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _say_what_we_wait_for(self, elsewhere: list[Job]) -> None:
        if self._has_said_why:
            return
        self._has_said_why = True
        count = sum(len(job.cell_ids) for job in elsewhere)
        self._console.print(
            f"waiting for {cells_in_words(count)} that another process runs (--no-wait does not)",
            highlight=False,
            soft_wrap=True,
        )

    def _show_preparations(self) -> None:
        """A bar for each text that any process tokenizes: on a terminal only."""
        found = preparations(self._study.data_root)
        for bar in self._preparing[len(found) :]:
            self._progress.remove_task(bar)
        del self._preparing[len(found) :]
        for place, preparation in enumerate(found):
            if place == len(self._preparing):
                self._preparing.append(self._progress.add_task("preparing data", total=None, note=""))
            megabytes, total = preparation.characters / 1e6, preparation.total
            whole = total / 1e6 if total else None
            note = f"MB of text for {preparation.part}"
            self._progress.update(
                self._preparing[place], completed=round(megabytes), total=whole and round(whole), note=note
            )

    def _count_done(self, running: list[Job]) -> int:
        """Done cells: only jobs that run now or ran at the last look can have changed."""
        for job in {*running, *self._watched}:
            self._done |= {cell_id for cell_id in job.cell_ids if self._study.folder(job.stage, cell_id).is_done()}
        self._watched = list(running)
        return self._plan.done + len(self._done)

    def _show(self, job: Job, done: int) -> None:
        cell_id, status = self._current(job)
        if not status.progress:
            return
        text = f"{cell_id} {describe(self._cells[cell_id])}"
        if not self._has_bars:
            self._console.print(
                f"{done}/{len(self._cells)} cells; {text} {_note(status.progress)}", highlight=False, soft_wrap=True
            )
            return
        bar = self._bars.get(job)
        if bar is None:
            bar = self._bars[job] = self._progress.add_task(text, total=None, note="")
        done, total = status.progress.step or 0, status.progress.steps
        self._progress.update(bar, description=text, completed=done, total=total, note=_note(status.progress))

    def _current(self, job: Job) -> tuple[str, Status]:
        statuses = [(cell_id, self._study.folder(job.stage, cell_id).status()) for cell_id in job.cell_ids]
        running = [entry for entry in statuses if entry[1].state is State.RUNNING] or statuses
        return max(running, key=lambda entry: (bool(entry[1].progress), entry[1].updated))


def describe(cell: Cell) -> str:
    """A few words that tell a cell from its neighbours."""
    config = cell.config
    if isinstance(config, CompressConfig):
        return f"of {Path(config.checkpoint).name}"
    return f"{config.arch.name} {config.arch.width}x{config.arch.depth} {parse_budget(config.budget).in_words}"


def _note(progress: CellProgress) -> str:
    parts = [
        ("step {:,}", progress.step),
        ("loss {:.3f}", progress.loss),
        ("{:,.0f} tokens/s", progress.tokens_per_second),
        ("{:.0f} s left", progress.seconds_left),
    ]
    return ", ".join(template.format(value) for template, value in parts if value is not None)
