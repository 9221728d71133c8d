"""The plan of a command as tables, for people."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from rich.console import Console

from trainlarge.commands.forecast import FIELDS, SPARED_STEPS, StageForecast, StudyForecast
from trainlarge.commands.job_words import without_common
from trainlarge.commands.summary import checkpoints, doubts
from trainlarge.commands.terminal import table
from trainlarge.config.budget import EPOCHS, parse_budget
from trainlarge.launch.progress import cells_in_words, plan_in_words
from trainlarge.results.units import counted_text, prefixed_text, seconds_text
from trainlarge.sweep.step_times import budgets_missed, missed_in_words

SHOWN_JOBS = 20
UNKNOWN = "–"
"""What is not measured yet."""
SHOWN_FIELDS = tuple(name for name in FIELDS if name != "tokens")
"""Those of a table, whose rows should fit into 100 columns."""
_ABOUT_RECIPES = (
    "some shapes have no recipe yet in this study: times are about those of evaluation, by its FLOPs and the time of a "
    "training step"
)
_SEED_UNREAD = (
    "seed changes no result of compress cells, only their ids: random pruning has prune.seed, and training after "
    "pruning the seed of the train cell"
)
_WRITERS = {
    **dict.fromkeys(("parameters", "tokens"), prefixed_text("")),
    **dict.fromkeys(("disk_bytes", "state_bytes"), prefixed_text("B")),
    "steps": counted_text(""),
    "flops": prefixed_text(""),
    "seconds": seconds_text,
}


def print_study(forecast: StudyForecast, console: Console) -> None:
    """Each sweep, then one row per sweep and the totals."""
    for stage in forecast.stages:
        print_stage(stage, console)
        console.print()
    if len(forecast.stages) == 1:
        return
    header = ("sweep", "cells", "done", "jobs", "FLOPs", "time of jobs", "time to the end", "disk", "saved states")
    rows = [
        [stage.title, *_counts(stage), *_sums(stage.estimate.total, stage.estimate.elapsed_seconds)]
        for stage in forecast.stages
    ]
    rows.append(["study", *_counts(forecast), *_sums(forecast.total, forecast.elapsed_seconds)])
    console.print(table(header, rows, console.is_terminal))


def _counts(forecast: StageForecast | StudyForecast) -> list[str]:
    return [str(forecast.cells), str(forecast.done), str(forecast.jobs)]


def _sums(total: Callable[[str], float | None], elapsed: float | None) -> list[str]:
    flops, seconds, disk, states = (
        _text(name, total(name)) for name in ("flops", "seconds", "disk_bytes", "state_bytes")
    )
    return [flops, seconds, _text("seconds", elapsed), disk, states]


def print_stage(forecast: StageForecast, console: Console) -> None:
    """For people: one row per job, the longest first, and the totals."""
    plan, jobs = forecast.plan, forecast.estimate.jobs
    console.print(plan_in_words(plan, forecast.study, forecast.title), markup=False, soft_wrap=True)
    if not jobs:
        return
    common, words = without_common([job.words for job in jobs])
    header = ("job", "cells", "parameters", "steps", "FLOPs", "time", "disk", "saved states")
    rows = [
        [", ".join(own), str(len(job.cells)), *(_text(name, getattr(job, name)) for name in SHOWN_FIELDS)]
        for own, job in zip(words[:SHOWN_JOBS], jobs, strict=False)
    ]
    if len(jobs) > SHOWN_JOBS:
        rows.append([f"... and {len(jobs) - SHOWN_JOBS} more", *[""] * (len(header) - 1)])
    totals = [_text(name, forecast.estimate.total(name)) for name in SHOWN_FIELDS]
    rows.append(["total", str(sum(len(job.cells) for job in jobs)), *totals])
    if common:
        console.print(f"each job: {', '.join(common)}", markup=False, soft_wrap=True)
    console.print(table(header, rows, console.is_terminal))
    for line in _notes(forecast):
        console.print(line, soft_wrap=True, markup=False)


def _text(name: str, value: float | None) -> str:
    return UNKNOWN if value is None else _WRITERS[name](value).strip()


def _notes(forecast: StageForecast) -> list[str]:
    whole = forecast.estimate
    longest = whole.jobs[0]
    notes = [] if longest.seconds is None else [f"longest job: {longest.what}, {seconds_text(longest.seconds)}"]
    if whole.elapsed_seconds is not None:
        at_once = f"{whole.at_once} at once" if whole.at_once else "all at once"
        notes.append(f"all jobs, {at_once}: {seconds_text(whole.elapsed_seconds)}")
    if spared := whole.total(SPARED_STEPS):
        notes.append(f"saved states spare {counted_text('')(spared).strip()} steps, which are not counted above")
    notes += _notes_of_steps(forecast)
    if forecast.plan.stage == "compress":
        notes += doubts(checkpoints(forecast.study, forecast.plan.cells), "checkpoint")
        notes += [_SEED_UNREAD] if any(cell.config.seed for cell in forecast.plan.cells) else []
    devices = list(dict.fromkeys(job.timed_on for job in whole.jobs if job.timed_on))
    notes += [f"timed on {device}" for device in devices]
    notes += _notes_of_unknown_times(forecast)
    return [*notes, *forecast.launch.notes, *map(shlex.join, forecast.launch.commands)]


def _notes_of_unknown_times(forecast: StageForecast) -> list[str]:
    """On what stands for times that were not measured, and how to measure them."""
    untimed = [job for job in forecast.estimate.jobs if job.timed_on is None]
    is_open = any(getattr(job, name) is None for job in untimed for name in SHOWN_FIELDS)
    notes = [f"{UNKNOWN} stands for what is not measured yet"] if is_open else []
    is_about = any(job.seconds and job.steps is not None for job in untimed)
    if forecast.plan.stage == "compress":
        return [*notes, _ABOUT_RECIPES] if is_about else notes
    if not untimed:
        return notes
    remedy = "; trainlarge plan --calibrate does that in seconds" if forecast.runs_here else ""
    about = "; where they start from a checkpoint, its steps say about how long theirs take" if is_about else ""
    return [*notes, f"some shapes have not been timed in this study{remedy}{about}"]


def _notes_of_steps(forecast: StageForecast) -> list[str]:
    """On budgets that were missed, and on those that are all warm-up."""
    cells = {cell.id: cell.as_train for cell in forecast.plan.cells} if forecast.plan.stage == "train" else {}
    missed = {cell: ratio for cell, ratio in budgets_missed(forecast.study).items() if cell in cells}
    planned = [(cell.steps, cells[cell.cell]) for job in forecast.estimate.jobs for cell in job.cells if cells]
    short = [config for steps, config in planned if steps and steps <= config.schedule.warmup_steps]
    warning = f"all steps of {cells_in_words(len(short))} lie inside the warm-up (schedule.warmup_steps)"
    is_open = any(steps is None and parse_budget(config.budget).unit == EPOCHS for steps, config in planned)
    unknown = "budgets in epochs become steps when the data is prepared, as the first job or --calibrate does"
    full = "rows of task.batches=bucketed count as full ones until the data is prepared: most steps will take in less"
    is_full = any(job.has_full_rows for job in forecast.estimate.jobs)
    notes = [
        (missed_in_words(missed) if missed else "", bool(missed)),
        (warning, bool(short)),
        (unknown, is_open),
        (full, is_full),
    ]
    return [note for note, applies in notes if applies]
