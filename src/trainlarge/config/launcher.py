"""The group ``launcher``: where jobs run. One dataclass per launcher, which names its code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trainlarge.config.budget import parse_time
from trainlarge.config.choices import ChosenGroup
from trainlarge.config.sbatch import check_sbatch_option
from trainlarge.errors import UserError

_MEMORY = re.compile(r"[0-9]+(?:[KMGT]B?)?", re.IGNORECASE | re.ASCII)
"""As sbatch reads it."""


@dataclass(frozen=True)
class LauncherConfig(ChosenGroup):
    """Where jobs run (not identity): the keys of every launcher."""

    key: ClassVar[str] = "launcher"

    name: str = "local"
    """``local``: one process per job on this machine; ``slurm``: one array task per job."""
    retries: int = 0
    """How often a failed cell is tried again within one command (or one submission)."""
    max_failures: int = 0
    """Failed cells after which no further job is started; running jobs finish. 0: no limit."""
    fail_fast: bool = False
    """Stop at the first failed cell: no further job is started, running jobs save their state and stop."""
    wait: bool = True
    """Wait for cells that another process runs, and take over those that it leaves. A launcher that submits its jobs to
    a cluster never waits."""

    hang_seconds: int = 300
    """Seconds without a sign of work after which a job counts as hung: it is ended, and its cells run again from their
    saved states, once per command. Signs are steps, messages in the log, use of the CPU, bytes read and written. 0:
    never."""

    run_by: ClassVar[str]
    """Where its class is, ``module:name``: see ``trainlarge.launch.launcher``."""

    @classmethod
    def by_name(cls) -> Mapping[str, type[LauncherConfig]]:
        """All launchers."""
        return LAUNCHERS

    def check(self) -> None:
        """Refuse negative numbers."""
        self.require_whole(0, "retries", "max_failures", "hang_seconds")

    def stop_reason(self, failed: int) -> str | None:
        """Why no job is started any more once ``failed`` cells have failed for good; None while jobs may start."""
        cells = "1 cell has" if failed == 1 else f"{failed} cells have"
        if self.fail_fast and failed:
            return f"{cells} failed, and launcher.fail_fast stops all others"
        if self.max_failures and failed >= self.max_failures:
            return f"{cells} failed, and launcher.max_failures={self.max_failures}"
        return None


@dataclass(frozen=True)
class LocalConfig(LauncherConfig):
    """Jobs on this machine, one process each."""

    per_device: int = 1
    """Jobs that share one GPU. From 2 on, times of the cells are no results: they stay out of figures in seconds, and
    budgets in seconds are refused."""

    run_by: ClassVar[str] = "trainlarge.launch.local.launcher:LocalLauncher"

    def check(self) -> None:
        """Refuse numbers out of range."""
        super().check()
        self.require_whole(1, "per_device")


@dataclass(frozen=True)
class SlurmConfig(LauncherConfig):
    """Jobs on a SLURM cluster, one array task each."""

    name: str = "slurm"
    array_parallelism: int = 0
    """Array tasks that run at once; 0: as many as the cluster gives."""
    partition: str | None = None
    """Partition; null: the cluster's default. So for every key below that is null."""
    time: str | None = None
    """Time limit of one array task (``1 h 30 min``); a job that needs longer continues in its next turn."""
    memory: str | None = None
    """Memory of one array task: a whole number with K, M, G or T (``16G``), without a letter in MB."""
    cpus: int = 1
    """CPU cores of one array task."""
    gpus: str | None = None
    """GPUs of one array task: a number, or a type and a number (``a100:1``)."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    sbatch: tuple[str, ...] = ()
    """More options of sbatch, one each (``--constraint=avx512``)."""
    setup: tuple[str, ...] = ()
    """Shell lines before Python starts (``module load python``)."""
    python: str | None = None
    """Python of the array tasks; null: the one that submits."""
    signal_lead: int = 180
    """Seconds before the time limit at which a job saves its state and goes back into the queue."""
    max_requeues: int = 20
    """How often an array task starts again before it is given up."""
    max_array_size: int = 0
    """Jobs in one array, more are split; 0: what the cluster allows."""

    ignores: ClassVar[frozenset[str]] = frozenset({"workers"})
    run_by: ClassVar[str] = "trainlarge.launch.slurm.launcher:SlurmLauncher"

    def check(self) -> None:
        """Refuse what cannot be right; what only the cluster knows, it says itself."""
        super().check()
        self.require_whole(0, "array_parallelism", "max_requeues", "max_array_size")
        self.require_whole(1, "cpus", "signal_lead")
        is_memory = self.memory is None or _MEMORY.fullmatch(self.memory) is not None
        self.require("memory", is_memory, "a whole number with K, M, G or T, such as 16G; without a letter in MB")
        limit = self.limit_seconds
        if limit is not None and limit <= self.signal_lead:
            raise UserError("launcher.signal_lead", self.signal_lead, f"less than the time limit of {limit:.0f} s")
        for line in self.sbatch:
            check_sbatch_option(line)
        for line in self.setup:
            if "\n" in line:
                raise UserError("launcher.setup", line, "a list of single shell lines")

    @property
    def limit_seconds(self) -> float | None:
        """The time limit of one array task in seconds; None for the cluster's.

        Raises:
            UserError: for what is no time.
        """
        return None if self.time is None else parse_time(self.time, "launcher.time")


LAUNCHERS: dict[str, type[LauncherConfig]] = {"local": LocalConfig, "slurm": SlurmConfig}
"""Configuration of a launcher by its name."""
