"""The interface of a launcher: one way to run the jobs of a command. A launcher is found by ``launcher.name``.

To add one: a dataclass in ``config/launcher.py``, a file here, a file in ``conf/launcher/``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

from rich.console import Console

from trainlarge.config.launcher import LauncherConfig
from trainlarge.config.schema import StageConfig
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import Plan
from trainlarge.sweep.store import Study


class JobState(StrEnum):
    """Where a submitted job is."""

    PENDING = "pending"
    """In the queue, for the first time or again."""
    RUNNING = "running"
    """It runs, or a living process holds its cells."""
    ENDED = "ended"
    """Over, and every cell is done or failed."""
    LOST = "lost"
    """Not in the queue any more, with unfinished cells: cancelled, preempted for good, killed. Submit it again."""
    UNKNOWN = "unknown"
    """The queue does not answer now."""


ON_ITS_WAY = frozenset({JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN})
"""States of jobs that must not be submitted again."""


@dataclass(frozen=True)
class Ending:
    """How a launcher came back."""

    is_submitted: bool = False
    """Whether jobs were left to a cluster, which runs them later."""
    stop_reason: str | None = None
    """Why jobs were not started; None where all were."""


@dataclass(frozen=True)
class Forecast:
    """How a launcher would run the jobs of a plan."""

    resources: Resources
    """Cores and GPUs of each job."""
    jobs_at_once: int | None
    """Jobs that run at the same time; None: as many as the cluster gives."""
    commands: tuple[tuple[str, ...], ...] = ()
    """Commands by which it would submit them, without the script; empty where it starts them itself."""
    on_their_way: int | None = None
    """Jobs of the plan that are submitted already; None where that is not known, or nothing is submitted."""
    notes: tuple[str, ...] = ()
    """What else a person should know, one line each."""


class Launcher(Protocol):
    """Runs the jobs of one command."""

    label: ClassVar[str]
    """What a person calls it."""
    runs_here: ClassVar[bool]
    """Whether jobs run on this machine: its devices are checked before they start, and step times are measured here."""

    def __init__(self, config: LauncherConfig, cells: Sequence[StageConfig]) -> None:
        """The launcher of one command; asks nothing and writes nothing.

        Args:
            config: its own dataclass of ``trainlarge.config.launcher``.
            cells: the configurations of the command's cells.

        Raises:
            UserError: for a value that cannot be right.
        """

    def check(self) -> None:
        """Check what only the cluster knows; called once before anything is written.

        Raises:
            UserError: where it does not.
        """

    def run(self, study: Study, plan: Plan, console: Console) -> Ending:
        """Run or submit the jobs of a plan, except those that are submitted or run already."""

    def forecast(self, study: Study, plan: Plan) -> Forecast:
        """How ``run`` would run them; writes nothing."""

    @staticmethod
    def jobs(study: Study) -> Counter[JobState] | None:
        """How many submitted jobs of a study are in which state; None where no job outlives its command."""
