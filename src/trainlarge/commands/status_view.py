"""Show the state of a study on the terminal, once or refreshed until all cells are done."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from trainlarge.commands.status import KINDS, STALE, CellState, StudyState, read_state, status_json
from trainlarge.commands.terminal import table
from trainlarge.launch.progress import cells_in_words
from trainlarge.launch.registry import launcher_class
from trainlarge.results.units import seconds_text
from trainlarge.sweep.status import State
from trainlarge.sweep.step_times import missed_in_words
from trainlarge.sweep.store import Study

WATCH_SECONDS = 2.0
"""Time between two looks."""
SHOWN = 15
"""Rows of running and of failed cells."""
NOTHING = "–"


def view(state: StudyState, is_terminal: bool) -> RenderableType:
    """Tables of states, running cells and failures, and the commands that act on them."""
    parts: list[RenderableType] = [Text(f"{state.study.name}: {state.study.path}", overflow="fold")]
    parts.append(_counts(state, is_terminal) if state.cells else Text("no cells yet"))
    # A job reports its progress in the cell that it is at; the other cells that it holds come after.
    running = sorted(state.those(State.RUNNING, STALE), key=lambda cell: not cell.progress)
    for rows, make in ((running, _running), (state.those(State.FAILED), _failed)):
        if rows:
            parts += [Text(), make(rows[:SHOWN], is_terminal), *_more(len(rows) - SHOWN)]
    parts += [Text(text) for text in state.hangs()]
    parts += [Text(f"{cells_in_words(count)} {why}") for why, count in state.not_run().items()]
    if state.missed:
        parts.append(Text(missed_in_words(state.missed)))
    for launcher, jobs in state.submitted.items():
        if jobs:
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(jobs.items()))
            parts.append(Text(f"{launcher_class(launcher).label} jobs: {counts}"))
    last = [f"next: {command}" for command in state.commands()]
    last += [] if last or state.report is None else [f"report: {state.report}"]
    return Group(*parts, Text(), *map(Text, last))


def show(study: Study, console: Console, as_json: bool) -> StudyState:
    """Print the state of a study once."""
    state = read_state(study)
    if as_json:
        print(status_json(state), flush=True)
    else:
        console.print(view(state, console.is_terminal))
    return state


def watch(study: Study, console: Console, as_json: bool, seconds: float = WATCH_SECONDS) -> None:
    """Print the state of a study every few ``seconds`` until all is done, or until an interrupt."""
    try:
        if as_json or not console.is_terminal or console.is_dumb_terminal:
            _until_done(lambda: show(study, console, as_json), seconds)
        else:
            with Live(console=console, auto_refresh=False) as live:
                _until_done(lambda: _refreshed(live, study), seconds)
    except KeyboardInterrupt:
        # To stop looking changes nothing.
        return


def _until_done(look: Callable[[], StudyState], seconds: float) -> None:
    while not look().is_done:
        time.sleep(seconds)


def _refreshed(live: Live, study: Study) -> StudyState:
    state = read_state(study)
    live.update(view(state, is_terminal=True), refresh=True)
    return state


def _counts(state: StudyState, is_terminal: bool) -> RenderableType:
    counted = state.counts()
    kinds = [kind for kind in KINDS if kind in _ALWAYS or any(counts[kind] for counts in counted.values())]
    diverged = {stage: state.diverged(stage) for stage in counted}
    shown = ["cells", *kinds, *(["diverged"] if any(diverged.values()) else [])]
    numbers = {
        stage: {"cells": counts.total(), **counts, "diverged": diverged[stage]} for stage, counts in counted.items()
    }
    rows = [[stage, *(str(row.get(name, 0)) for name in shown)] for stage, row in numbers.items()]
    header = ["stage", *shown]
    return table(header, rows, is_terminal)


def _running(cells: list[CellState], is_terminal: bool) -> RenderableType:
    header = (
        "running",
        "stage",
        "attempts",
        "retries",
        "step",
        "of",
        "loss",
        "time left",
        "last progress",
        "last heartbeat",
    )
    rows = []
    for cell in cells:
        name, progress = f"{cell.cell} ({STALE})" if cell.state == STALE else cell.cell, cell.progress
        numbers = [_number(progress.step, "{:,}"), _number(progress.steps, "{:,}"), _number(progress.loss, "{:.3f}")]
        times = [_time(progress.seconds_left), _time(cell.progress_age), _time(cell.heartbeat_age)]
        rows.append([name, cell.stage, str(cell.attempts), str(cell.retries), *numbers, *times])
    return table(header, rows, is_terminal, texts=2)


def _failed(cells: list[CellState], is_terminal: bool) -> RenderableType:
    rows = [[cell.cell, cell.stage, str(cell.attempts), str(cell.retries), cell.error or NOTHING] for cell in cells]
    return table(("failed", "stage", "attempts", "retries", "error"), rows, is_terminal, texts=5)


def _more(count: int) -> list[RenderableType]:
    return [Text(f"... and {count} more")] if count > 0 else []


def _number(value: float | None, template: str) -> str:
    return NOTHING if value is None else template.format(value)


def _time(seconds: float | None) -> str:
    return NOTHING if seconds is None else seconds_text(seconds)


_ALWAYS = (State.QUEUED, State.RUNNING, State.DONE, State.FAILED)
