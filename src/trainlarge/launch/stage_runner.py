"""What runs the cells of a stage. Its code is imported only when it is needed."""

from __future__ import annotations

from typing import Protocol, TypeVar, cast

from trainlarge.config.schema import CommonConfig, StageConfig
from trainlarge.launch.job import RunningJob
from trainlarge.machine.resources import Resources
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.stages import Stage, stage_named
from trainlarge.sweep.store import Study

C = TypeVar("C", bound=CommonConfig)

RUNNERS = {"train": "trainlarge.training.trunk", "compress": "trainlarge.compression.stage"}
"""Stage -> the module that runs its cells, which a fork server imports once for all jobs."""


class StageRunner(Stage[C], Protocol[C]):
    """A stage that can run its cells; importing what computes is left to its methods."""

    def prepare(self, study: Study, cells: list[Cell], resources: Resources) -> None:
        """Do what ``to_prepare`` found for the cells; not called for none.

        Args:
            study: the study of the cells.
            cells: what ``to_prepare`` gave.
            resources: what each job will have.
        """

    def run(self, job: RunningJob) -> None:
        """Finish every cell of the job, one record each."""


def runner_named(name: str) -> StageRunner[StageConfig]:
    """The stage of that name, as what runs it.

    Raises:
        UserError: when there is none.
    """
    return cast(StageRunner[StageConfig], stage_named(name))
