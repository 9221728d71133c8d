"""What a command will do and take, before anything runs: its plan, its estimate, and how its launcher would run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainlarge.commands.ahead import Ahead, look_at_stage
from trainlarge.commands.chain import StageSweep
from trainlarge.commands.estimate import Estimate, estimate
from trainlarge.commands.step_times import StepTimes
from trainlarge.config.canonical import canonical_json
from trainlarge.errors import UserError
from trainlarge.launch.launcher import Forecast
from trainlarge.machine.environment import make_threads_yield
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import Plan, look_ahead
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import Study
from trainlarge.training.cells import timed_part

SPARED_STEPS = "spared_steps"
FIELDS = ("parameters", "steps", "tokens", "flops", "seconds", "disk_bytes", "state_bytes")
"""What is summed over jobs, as fields of ``JobEstimate``."""
_OF_STUDY = tuple(name for name in FIELDS if name != "parameters")


@dataclass(frozen=True)
class StageForecast:
    """The plan of one sweep and what it will take."""

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
    file: str = ""
    """Name of its sweep file without ``.yaml``, where it is one of a study."""

    @property
    def title(self) -> str:
        """What it is called beside others: by its file, or by its stage."""
        return self.file or self.plan.stage

    @property
    def cells(self) -> int:
        """Cells that were asked for."""
        return len(self.plan.cells)

    @property
    def done(self) -> int:
        """Those of them that are done."""
        return self.plan.done

    @property
    def jobs(self) -> int:
        """Jobs to run."""
        return len(self.plan.jobs)

    def to_json(self) -> dict[str, object]:
        """Plain data; null stands for what is not measured."""
        return {
            "study": self.study.name,
            "path": str(self.study.path),
            "stage": self.plan.stage,
            "file": self.file or None,
            "launcher": self.launcher,
            "workers": self.launch.jobs_at_once if self.runs_here else None,
            "cells": self.cells,
            "done": self.done,
            "arrays": list(map(list, self.launch.commands)),
            "on_their_way": self.launch.on_their_way,
            "total": {name: self.estimate.total(name) for name in (*FIELDS, SPARED_STEPS)},
            "elapsed_seconds": self.estimate.elapsed_seconds,
            "jobs": [job.to_json() for job in self.estimate.jobs],
        }


@dataclass(frozen=True)
class StudyForecast:
    """All sweeps of a study."""

    stages: tuple[StageForecast, ...]
    """In their order; checkpoints of a later one need not be there yet."""

    @property
    def study(self) -> Study:
        """Where the cells would go."""
        return self.stages[0].study

    @property
    def cells(self) -> int:
        """Cells of all sweeps."""
        return sum(stage.cells for stage in self.stages)

    @property
    def done(self) -> int:
        """Those of them that are done."""
        return sum(stage.done for stage in self.stages)

    @property
    def jobs(self) -> int:
        """Jobs to run."""
        return sum(stage.jobs for stage in self.stages)

    def total(self, name: str) -> float | None:
        """Sum of a field over all jobs of all sweeps; None when a job does not know it."""
        values = [stage.estimate.total(name) for stage in self.stages]
        return None if None in values else sum(value or 0.0 for value in values)

    @property
    def elapsed_seconds(self) -> float | None:
        """Seconds until the last job of the last sweep ends: a sweep starts when the one before it is done."""
        seconds = [stage.estimate.elapsed_seconds for stage in self.stages]
        return None if None in seconds else sum(value or 0.0 for value in seconds)

    def to_json(self) -> dict[str, object]:
        """Plain data; null stands for what is not measured."""
        return {
            "study": self.study.name,
            "path": str(self.study.path),
            "cells": self.cells,
            "done": self.done,
            "total": {name: self.total(name) for name in _OF_STUDY},
            "elapsed_seconds": self.elapsed_seconds,
            "stages": [stage.to_json() for stage in self.stages],
        }


def forecast_stage(
    stage: str, arguments: list[str], calibrate: bool = False, planned: Planned = NOTHING_PLANNED
) -> tuple[StageForecast, Planned]:
    """The plan of a command line of ``train`` or ``compress``, and the train cells that there will be after it.

    Args:
        stage: ``train`` or ``compress``.
        arguments: Hydra flags and overrides; read as a sweep, of one cell if need be.
        calibrate: first time a step of each shape, also where that was done before, and keep it with the study.
        planned: train cells whose checkpoints will be there.

    Raises:
        UserError: for anything that the command itself would refuse.
    """
    ahead = look_at_stage(stage, arguments, planned)
    plan, name = ahead.plan, ahead.first.launcher.name
    launch = ahead.launcher.forecast(ahead.study, plan)
    if calibrate:
        if stage != "train" or not ahead.launcher.runs_here:
            raise UserError("--calibrate", f"{stage}, {name}", "used for train cells whose jobs run on this machine")
        plan = _calibrated(ahead, launch.resources)
        launch = ahead.launcher.forecast(ahead.study, plan)
    times = StepTimes(ahead.study, ahead.launcher.runs_here, launch.resources)
    estimated = estimate(ahead.study, plan, times, launch.jobs_at_once, planned)
    forecast = StageForecast(ahead.study, plan, estimated, name, ahead.launcher.runs_here, launch)
    steps = {cell.cell: cell.steps for job in estimated.jobs for cell in job.cells}
    return forecast, ahead.planned_after(steps)


def forecast_study(
    sweeps: Sequence[StageSweep], config_dir: str | None = None, calibrate: bool = False
) -> StudyForecast:
    """The plan of all sweeps of a study, where each counts on what those before it will have made.

    Args:
        sweeps: of the study, in their order.
        config_dir: a further folder of configurations.
        calibrate: first time a step of each shape that is trained.

    Raises:
        UserError: for anything that one of them would refuse.
    """
    if calibrate and all(sweep.stage != "train" for sweep in sweeps):
        raise UserError("--calibrate", "compress", "used for a study with train cells")
    planned, forecasts = NOTHING_PLANNED, list[StageForecast]()
    for sweep in sweeps:
        times = calibrate and sweep.stage == "train"
        with sweep.named_in_errors():
            forecast, planned = forecast_stage(sweep.stage, sweep.arguments(config_dir), times, planned)
        forecasts.append(replace(forecast, file=sweep.title))
    return StudyForecast(tuple(forecasts))


def _calibrated(ahead: Ahead, resources: Resources) -> Plan:
    """The plan once a step of each of its shapes was timed once more, in turns; not of checkpoints that are to come.

    Earlier times stay, and the smallest counts. What was observed now may prove budgets missed of cells that are done.
    """
    make_threads_yield()
    # Imports torch, which reads the environment that was set above.
    from trainlarge.training.turns import time_in_turns

    cells = list(ahead.plan.cells)
    # Cells whose checkpoint is not there yet wait for that; most of their shapes are those of the checkpoints.
    ready = [cell for cell in cells if cell.as_train.checkpoint not in ahead.planned]
    shapes = {canonical_json(timed_part(cell.as_train)): cell for cell in ready}
    time_in_turns(ahead.study, list(shapes.values()), resources, least=1)
    return look_ahead(ahead.study, ahead.plan.stage, cells, ahead.first.redo, ahead.planned)
