"""The two stages, by name. Their code, which imports this folder, is imported only when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, TypeVar

from trainlarge.config.group import Plain
from trainlarge.config.schema import CommonConfig
from trainlarge.errors import UserError
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import Study

C = TypeVar("C", bound=CommonConfig)

_MODULES = {"train": "trainlarge.training.cells", "compress": "trainlarge.compression.cells"}
"""Stage -> the module whose ``STAGE`` is the stage."""
STAGES = tuple(_MODULES)


class Stage(Protocol[C]):
    """What a stage knows about its cells. Its module imports nothing heavy.

    What runs them is a ``trainlarge.launch.stage_runner.StageRunner``: the same object.
    """

    def resolve(self, config: C, planned: Planned = NOTHING_PLANNED) -> C:
        """The full configuration: rules applied, nothing left to defaults; refuses the impossible with a UserError."""

    def shared_work(self, config: C) -> Plain:
        """Plain data that is equal for cells which share work, and so one job."""

    def cost(self, config: C, planned: Planned = NOTHING_PLANNED) -> float:
        """Work of the cell in any unit, to order jobs and to draw progress."""

    def look(self, study: Study, cells: Sequence[Cell], causes: Causes, planned: Planned) -> None:
        """Look, within seconds, for what would make a job of these cells fail, and add it to ``causes``."""

    def to_prepare(self, cells: list[Cell]) -> list[Cell]:
        """Those of the cells for which something is to be done before any job starts."""


def stage_named(name: str) -> Stage[Any]:
    """The stage of that name.

    Raises:
        UserError: when there is none.
    """
    if name not in _MODULES:
        raise UserError("stage", name, " or ".join(_MODULES))
    stage: Stage[Any] = import_module(_MODULES[name]).STAGE
    return stage
