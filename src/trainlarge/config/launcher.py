"""The group ``launcher``: where jobs run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainlarge.config.group import Group


@dataclass(frozen=True)
class LauncherConfig(Group):
    """Where jobs run (not identity)."""

    key: ClassVar[str] = "launcher"

    name: str = "local"
    """``local``: one process a job on this machine; ``slurm``: one array task a job."""
    retries: int = 0
    """How often a failed cell is tried again within one command (or one submission)."""
    max_failures: int = 0
    """Failed cells after which no further job is started; those that run go on to their ends. 0: no limit."""
    fail_fast: bool = False
    """The first failed cell is one too many: no further job is started, those that run save their state and stop."""
    wait: bool = True
    """``local``: wait for cells that another process runs, and take over those that it leaves. (``slurm`` never waits.)
    """
    per_device: int = 1
    """``local``: jobs that share one GPU. From 2 on, times of the cells are no results: they stay out of figures in
    seconds, and budgets in seconds are refused."""
    array_parallelism: int = 0
    """``slurm``, as all keys from here on. Array tasks that run at once; 0: as many as the cluster gives."""
    partition: str | None = None
    """Partition; null: the cluster's default. So for every key below that is null."""
    time: str | None = None
    """Time limit of one array task with its unit (``4 h``); a job that needs longer goes on in its next turn."""
    memory: str | None = None
    """Memory of one array task, as SLURM reads it (``16G``)."""
    cpus: int = 1
    """CPU cores of one array task."""
    gpus: str | None = None
    """GPUs of one array task: a number, or a type and a number (``a100:1``)."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    sbatch: tuple[str, ...] = ()
    """More options of sbatch (``--constraint=avx512``)."""
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

    def check(self) -> None:
        for name in ("retries", "max_failures"):
            self.require(name, getattr(self, name) >= 0, "a whole number of at least 0")
