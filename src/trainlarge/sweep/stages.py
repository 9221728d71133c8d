"""The two stages, by name. Their code, which imports this folder, is imported only when it is needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, TypeVar

from trainlarge.config.group import Plain
from trainlarge.config.schema import CommonConfig
from trainlarge.errors import UserError
from trainlarge.sweep.cell import Cell

C = TypeVar("C", bound=CommonConfig)

_MODULES = {"train": "trainlarge.training.cells", "compress": "trainlarge.compression.cells"}
"""Stage -> the module whose ``STAGE`` is the stage."""
_RUNNERS = {"train": "trainlarge.training.trunk", "compress": "trainlarge.compression.stage"}
STAGES = tuple(_MODULES)


class Stage(Protocol[C]):
    """What a stage knows about its cells. Its module imports nothing heavy: ``run`` and ``prepare`` do."""

    def resolve(self, config: C) -> C:
        """The full configuration: rules applied, nothing left to defaults; refuses the impossible with a UserError."""

    def shared_work(self, config: C) -> Plain:
        """Plain data that is equal for cells which share work, and so one job."""

    def cost(self, config: C) -> float:
        """Work of the cell in any unit, to order jobs and to draw progress."""

    def to_prepare(self, cells: list[Cell]) -> list[Cell]:
        """Those of the cells that ``prepare`` wants before any job starts."""

    def prepare(self, study: Any, cells: list[Cell], resources: Any) -> None:
        """Do what ``to_prepare`` found for the cells of a ``sweep.store.Study``; not called for none.

        Args:
            resources: the ``machine.resources.Resources`` that each job will have.
        """

    def run(self, job: Any) -> None:
        """Finish every cell of the ``launch.job.RunningJob``, one record each."""


def stage_named(name: str) -> Stage[Any]:
    """The stage of that name.

    Raises:
        UserError: when there is none.
    """
    if name not in _MODULES:
        raise UserError("stage", name, " or ".join(_MODULES))
    stage: Stage[Any] = import_module(_MODULES[name]).STAGE
    return stage


def runner_modules() -> list[str]:
    """Modules that a fork server imports once for all jobs."""
    return list(_RUNNERS.values())
