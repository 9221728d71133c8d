"""Runs the jobs of a command on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.console import Console

from trainlarge.config.launcher import LocalConfig
from trainlarge.config.schema import StageConfig
from trainlarge.launch.launcher import Ending, Forecast
from trainlarge.launch.local.processes import JobProcesses
from trainlarge.launch.local.shares import shares
from trainlarge.launch.progress import ProgressWatcher
from trainlarge.sweep.plan import Plan
from trainlarge.sweep.store import Study


class LocalLauncher:
    """Runs one job at a time on each share of this machine, until all have ended."""

    label: ClassVar[str] = "this machine"
    runs_here: ClassVar[bool] = True

    def __init__(self, config: LocalConfig, cells: Sequence[StageConfig]) -> None:
        self._config, self._shares = config, shares(config, cells)

    def check(self) -> None:
        """Nothing is left to ask: the shares of this machine are known."""

    def run(self, study: Study, plan: Plan, console: Console) -> Ending:
        """Run the jobs of a plan and show their progress; an interrupt leaves their cells claimable."""
        with ProgressWatcher(study, plan, console) as watcher:
            return Ending(stop_reason=JobProcesses(self._config, self._shares).run(study, plan, watcher))

    def forecast(self, study: Study, plan: Plan) -> Forecast:  # noqa: ARG002
        """One job on each share."""
        return Forecast(self._shares[0], jobs_at_once=len(self._shares))

    @staticmethod
    def jobs(study: Study) -> None:
        """No job outlives its command."""
