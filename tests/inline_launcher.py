"""A launcher of the tests: runs each job in this process. All that a third launcher needs, in one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console

from trainlarge.config.launcher import LauncherConfig
from trainlarge.config.schema import StageConfig
from trainlarge.launch.job import RunningJob
from trainlarge.launch.launcher import Ending, Forecast, JobState
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import Plan
from trainlarge.sweep.stages import stage_named
from trainlarge.sweep.store import Study


@dataclass(frozen=True)
class InlineConfig(LauncherConfig):
    """Jobs in this process."""

    name: str = "inline"
    cores: int = 1
    """CPU cores of each job."""

    run_by: ClassVar[str] = "inline_launcher:InlineLauncher"

    def check(self) -> None:
        super().check()
        self.require_whole(1, "cores")


class InlineLauncher:
    """Runs one job after the other."""

    label: ClassVar[str] = "Inline"
    runs_here: ClassVar[bool] = True

    def __init__(self, config: InlineConfig, cells: Sequence[StageConfig]) -> None:
        self._resources = Resources(config.cores)

    def check(self) -> None: ...

    def run(self, study: Study, plan: Plan, console: Console) -> Ending:
        for job in plan.jobs:
            running = RunningJob.claim(study, plan.stage, job.cell_ids, self._resources, plan.command)
            if not running.cells:
                continue
            with running.running():
                stage_named(plan.stage).run(running)
        return Ending()

    def forecast(self, study: Study, plan: Plan) -> Forecast:
        commands = tuple(("inline", job.cell_ids[0]) for job in plan.jobs)
        return Forecast(self._resources, jobs_at_once=1, commands=commands, notes=("in this process",))

    @staticmethod
    def jobs(study: Study) -> Counter[JobState]:
        return Counter({JobState.PENDING: 2})
