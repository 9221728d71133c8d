"""The keys of the SLURM launcher as options of sbatch, and what SLURM complains of as an error of one line."""

from __future__ import annotations

import math
import re
import shlex

from trainlarge.config.launcher import SlurmConfig
from trainlarge.errors import UserError

_DIRECT = {"partition": "--partition", "memory": "--mem", "account": "--account", "qos": "--qos"}
_COMPLAINTS = [
    (re.compile(pattern, re.IGNORECASE), key)
    for pattern, key in (
        ("partition", "partition"),
        ("time", "time"),
        ("mem", "memory"),
        ("account", "account"),
        ("qos", "qos"),
        ("gres|gpu|tres", "gpus"),
        ("option|feature|constraint|specification", "sbatch"),
    )
]


def sbatch_options(config: SlurmConfig) -> list[str]:
    """Options of sbatch for one array task."""
    options = [f"{option}={value}" for key, option in _DIRECT.items() if (value := getattr(config, key))]
    limit = config.limit_seconds
    options += [] if limit is None else [f"--time={math.ceil(limit / 60)}"]
    options += [f"--gres=gpu:{config.gpus}"] if config.gpus else []
    return [
        *options,
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={config.cpus}",
        "--requeue",
        "--open-mode=append",
        "--export=ALL",
        f"--signal=B:USR1@{config.signal_lead}",
        *(word for line in config.sbatch for word in shlex.split(line)),
    ]


def largest_array(config: SlurmConfig, allowed: int | None) -> int | None:
    """Jobs that one array may carry; None where nothing limits it.

    Args:
        config: the launcher's keys.
        allowed: MaxArraySize of the cluster; None where it is not known.

    Raises:
        UserError: for a cluster without arrays.
    """
    if allowed is not None and allowed < 1:
        raise UserError("launcher", "slurm", "used on a cluster that allows job arrays (MaxArraySize is 0)")
    limits = [limit for limit in (allowed, config.max_array_size) if limit]
    return min(limits, default=None)


def array_slices(jobs: int, largest: int | None) -> list[tuple[int, int]]:
    """First job and number of jobs of each array that carries ``jobs`` jobs, none larger than ``largest``."""
    step = largest or max(jobs, 1)
    return [(first, min(step, jobs - first)) for first in range(0, jobs, step)]


def array_option(config: SlurmConfig, count: int) -> str:
    """The option of sbatch that makes an array of ``count`` jobs."""
    at_once = f"%{config.array_parallelism}" if config.array_parallelism else ""
    return f"--array=0-{count - 1}{at_once}"


def explain_refusal(complaint: str, config: SlurmConfig) -> UserError:
    """What sbatch complains of, with the key that most likely caused it."""
    says = f"accepted by SLURM, which says: {complaint}"
    for pattern, key in _COMPLAINTS:
        if pattern.search(complaint) and (value := getattr(config, key)):
            return UserError(f"launcher.{key}", value, says)
    given = {key: getattr(config, key) for key in ("partition", "memory", "cpus", "gpus")}
    asked = ", ".join(f"{key}={value}" for key, value in given.items() if value)
    return UserError("launcher", config.name, f"{says} ({asked})")
