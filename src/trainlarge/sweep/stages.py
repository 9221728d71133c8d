"""The two stages, by name. Their code lies to the right of this folder and is imported only when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, cast

from trainlarge.errors import UserError

_DESCRIPTIONS = {"train": "trainlarge.training.cells", "compress": "trainlarge.compression.cells"}
_RUNNERS = {"train": "trainlarge.training.trunk", "compress": "trainlarge.compression.stage"}
STAGES = tuple(_DESCRIPTIONS)


class Description(Protocol):
    """What a stage knows about its cells before they run; imports nothing heavy."""

    def resolve(self, config: dict[str, Any]) -> dict[str, Any]:
        """The full configuration: rules applied, nothing left to defaults; refuses the impossible with a UserError."""

    def shared_work(self, config: dict[str, Any]) -> Any:
        """Plain data that is equal for cells which share work, and so one job."""

    def cost(self, config: dict[str, Any]) -> float:
        """Work of the cell in any unit, to order jobs and to draw progress."""

    def to_prepare(self, cells: list[Any]) -> list[Any]:
        """Those of the cells (``sweep.cell.Cell``) that ``Runner.prepare`` wants before any job starts."""


class Runner(Protocol):
    """What runs a job."""

    def run(self, job: Any) -> None:
        """Finish every cell of the ``launch.job.RunningJob``, one record each."""

    def prepare(self, study: Any, cells: list[Any], resources: Any) -> None:
        """Do what ``Description.to_prepare`` found for the cells of a ``sweep.store.Study``; not called for none.

        Args:
            resources: the ``machine.resources.Resources`` that each job will have.
        """


def description(stage: str) -> Description:
    """How ``stage`` resolves and groups its cells."""
    return cast(Description, import_module(_module(_DESCRIPTIONS, stage)))


def runner(stage: str) -> Runner:
    """What runs the jobs of ``stage``."""
    return cast(Runner, import_module(_module(_RUNNERS, stage)))


def runner_modules() -> list[str]:
    """Modules that a fork server imports once for all jobs."""
    return list(_RUNNERS.values())


def _module(table: dict[str, str], stage: str) -> str:
    if stage not in table:
        raise UserError("stage", stage, " or ".join(table))
    return table[stage]
