"""``trainlarge plan``: what a command would do, with numbers, before anything runs. It writes nothing."""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import asdict, dataclass

from rich.console import Console

from trainlarge.commands.call import Call
from trainlarge.commands.estimate import Estimate, estimate
from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.commands.launch_flags import with_keys
from trainlarge.commands.step_times import StepTimes
from trainlarge.commands.summary import checkpoints, doubts
from trainlarge.commands.terminal import console, table
from trainlarge.commands.verbs import verb_parser
from trainlarge.config.budget import EPOCHS, parse_budget
from trainlarge.config.canonical import canonical_json
from trainlarge.errors import UserError
from trainlarge.launch.check import check_cells, launcher_for
from trainlarge.launch.launcher import Forecast
from trainlarge.launch.progress import cells_in_words, plan_in_words
from trainlarge.machine.environment import make_threads_yield
from trainlarge.machine.resources import Resources
from trainlarge.results.units import counted_text, prefixed_text, seconds_text
from trainlarge.sweep.plan import NO_CELLS, Plan, look_ahead, make_cells
from trainlarge.sweep.stages import STAGES
from trainlarge.sweep.step_times import budgets_missed, missed_in_words
from trainlarge.sweep.store import Study
from trainlarge.training.cells import timed_part

SHOWN_JOBS = 20
UNKNOWN = "not measured"
_SWEEP_FLAGS = ("-m", "--multirun")
"""Taken as given: a plan reads every command line as a sweep, of one cell if need be."""
SAVED_STEPS = "spared_steps"
_FIELDS = ("parameters", "steps", "tokens", "flops", "seconds", "disk_bytes", "state_bytes")
_WRITERS = {
    **dict.fromkeys(("parameters", "tokens"), prefixed_text("")),
    **dict.fromkeys(("disk_bytes", "state_bytes"), prefixed_text("B")),
    "steps": counted_text(""),
    "flops": prefixed_text("FLOPs"),
    "seconds": seconds_text,
}


@dataclass(frozen=True)
class CommandForecast:
    """A command's plan and what it will take."""

    study: Study
    """Where the cells would go."""
    plan: Plan
    """Cells and jobs."""
    estimate: Estimate
    """What the jobs will take."""
    launcher: str
    """Name of the launcher."""
    runs_here: bool
    """Whether it runs jobs on this machine."""
    launch: Forecast
    """How it would run the jobs."""

    def to_json(self) -> dict[str, object]:
        """Plain data; null stands for what is not measured."""
        return {
            "study": self.study.name,
            "path": str(self.study.path),
            "stage": self.plan.stage,
            "launcher": self.launcher,
            "workers": self.launch.jobs_at_once if self.runs_here else None,
            "cells": len(self.plan.cells),
            "done": self.plan.done,
            "arrays": list(map(list, self.launch.commands)),
            "on_their_way": self.launch.on_their_way,
            "total": {name: self.estimate.total(name) for name in (*_FIELDS, SAVED_STEPS)},
            "elapsed_seconds": self.estimate.elapsed_seconds,
            "jobs": [asdict(job) for job in self.estimate.jobs],
        }


def main(call: Call) -> int:
    """Print the plan of a command line."""
    given = [argument for argument in with_keys(list(call.arguments)) if argument not in _SWEEP_FLAGS]
    options = parser().parse_intermixed_args(given)
    forecast = forecast_command(options.arguments, options.calibrate)
    if options.json:
        print_json(forecast)
    else:
        print_text(forecast, console())
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = verb_parser("plan")
    made.add_argument("arguments", nargs="*", metavar="STAGE | +sweeps=STUDY/STAGE | KEY=VALUE")
    made.add_argument("--json", action="store_true", help="for programs")
    made.add_argument(
        "--calibrate", action="store_true", help="time a step of each shape, once more where it has a time"
    )
    return made


def forecast_command(arguments: list[str], calibrate: bool = False) -> CommandForecast:
    """The plan of a command line of ``train`` or ``compress``.

    Args:
        arguments: a stage or ``+sweeps=STUDY/STAGE``, and Hydra overrides.
        calibrate: first time a step of each shape, also where that was done before, and keep it with the study.

    Raises:
        UserError: for anything that the command itself would refuse.
    """
    stage, overrides = _stage_of(arguments)
    # As a sweep always: one of a single point is a single cell.
    sweeps = act_on_cells(stage, ["-m", *overrides], lambda _, configs: configs)
    configs = [config for sweep in sweeps for config in sweep]
    if not configs:
        raise UserError("sweep", "no cells", NO_CELLS)
    launcher = launcher_for(configs)
    study, redo, name = Study.named(configs[0].study), configs[0].redo, configs[0].launcher.name
    plan = look_ahead(study, stage, make_cells(stage, configs), redo)
    left = {cell_id for job in plan.jobs for cell_id in job.cell_ids}
    check_cells(launcher, study, stage, [cell for cell in plan.cells if cell.id in left])
    launch = launcher.forecast(study, plan)
    if calibrate:
        if stage != "train" or not launcher.runs_here:
            raise UserError("--calibrate", f"{stage}, {name}", "used for train cells whose jobs run on this machine")
        _calibrate(study, plan, launch.resources)
        # What was observed now may prove budgets missed that cells are done with.
        plan = look_ahead(study, stage, list(plan.cells), redo)
        launch = launcher.forecast(study, plan)
    times = StepTimes(study, launcher.runs_here, launch.resources)
    return CommandForecast(
        study, plan, estimate(study, plan, times, launch.jobs_at_once), name, launcher.runs_here, launch
    )


def print_json(forecast: CommandForecast) -> None:
    """For programs."""
    print(json.dumps(forecast.to_json(), indent=1, allow_nan=False))


def print_text(forecast: CommandForecast, console: Console) -> None:
    """For people: one row per job, the longest first, and the totals."""
    plan, jobs = forecast.plan, forecast.estimate.jobs
    console.print(plan_in_words(plan, forecast.study), markup=False, soft_wrap=True)
    if not jobs:
        return
    header = ("job", "cells", "parameters", "steps", "tokens", "FLOPs", "time", "disk", "saved states")
    rows = [
        [job.what, str(len(job.cells)), *(_text(name, getattr(job, name)) for name in _FIELDS)]
        for job in jobs[:SHOWN_JOBS]
    ]
    if len(jobs) > SHOWN_JOBS:
        rows.append([f"... and {len(jobs) - SHOWN_JOBS} more", *[""] * (len(header) - 1)])
    totals = [_text(name, forecast.estimate.total(name)) for name in _FIELDS]
    rows.append(["total", str(sum(len(job.cells) for job in jobs)), *totals])
    console.print(table(header, rows, console.is_terminal))
    for line in _notes(forecast):
        console.print(line, soft_wrap=True, markup=False)


def _text(name: str, value: float | None) -> str:
    return UNKNOWN if value is None else _WRITERS[name](value).strip()


def _notes(forecast: CommandForecast) -> list[str]:
    whole = forecast.estimate
    notes = [f"longest job: {whole.jobs[0].what}, {_text('seconds', whole.jobs[0].seconds)}"]
    if whole.elapsed_seconds is not None:
        at_once = f"{whole.at_once} at once" if whole.at_once else "all at once"
        notes.append(f"all jobs, {at_once}: {seconds_text(whole.elapsed_seconds)}")
    if spared := whole.total(SAVED_STEPS):
        notes.append(f"saved states spare {counted_text('')(spared).strip()} steps, which are not counted above")
    notes += _notes_of_steps(forecast)
    if forecast.plan.stage == "compress":
        notes += doubts(checkpoints(forecast.study, forecast.plan.cells), "checkpoint")
    devices = list(dict.fromkeys(job.timed_on for job in whole.jobs if job.timed_on))
    notes += [f"timed on {device}" for device in devices]
    if forecast.plan.stage == "train" and any(job.timed_on is None for job in whole.jobs):
        remedy = "; trainlarge plan --calibrate does that in seconds" if forecast.runs_here else ""
        notes.append(f"some shapes have not been timed in this study{remedy}")
    return [*notes, *forecast.launch.notes, *map(shlex.join, forecast.launch.commands)]


def _notes_of_steps(forecast: CommandForecast) -> list[str]:
    """On budgets that were missed, and on those that are all warm-up."""
    cells = {cell.id: cell.as_train for cell in forecast.plan.cells} if forecast.plan.stage == "train" else {}
    missed = {cell: ratio for cell, ratio in budgets_missed(forecast.study).items() if cell in cells}
    planned = [(cell.steps, cells[cell.cell]) for job in forecast.estimate.jobs for cell in job.cells if cells]
    short = [config for steps, config in planned if steps and steps <= config.schedule.warmup_steps]
    warning = f"all steps of {cells_in_words(len(short))} lie inside the warm-up (schedule.warmup_steps)"
    is_open = any(steps is None and parse_budget(config.budget).unit == EPOCHS for steps, config in planned)
    unknown = "budgets in epochs become steps when the data is prepared, as the first job or --calibrate does"
    notes = [(missed_in_words(missed) if missed else "", bool(missed)), (warning, bool(short)), (unknown, is_open)]
    return [note for note, applies in notes if applies]


def _stage_of(arguments: list[str]) -> tuple[str, list[str]]:
    if arguments and arguments[0] in STAGES:
        return arguments[0], arguments[1:]
    named = [argument.rpartition("/")[2] for argument in arguments if argument.startswith("+sweeps=")]
    if named and named[-1] in STAGES:
        return named[-1], arguments
    raise UserError(
        "plan", " ".join(arguments) or "nothing", f"must begin with {' or '.join(STAGES)}, or hold +sweeps=STUDY/STAGE"
    )


def _calibrate(study: Study, plan: Plan, resources: Resources) -> None:
    """Time a step of each shape of the plan once more, in turns; earlier times stay, and the smallest counts."""
    make_threads_yield()
    # Imports torch, which reads the environment that was set above.
    from trainlarge.training.turns import time_in_turns

    shapes = {canonical_json(timed_part(cell.as_train)): cell for cell in plan.cells}
    time_in_turns(study, list(shapes.values()), resources, least=1)
