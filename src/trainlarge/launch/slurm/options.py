"""The keys of ``launcher`` as options of sbatch, and what SLURM complains of as an error of one line."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

from trainlarge.config.budget import SECONDS, parse_budget
from trainlarge.config.launcher import LauncherConfig
from trainlarge.errors import UserError
from trainlarge.launch.failure_policy import FailurePolicy
from trainlarge.launch.local.options import LOCAL_ONLY, refuse_keys

OURS = frozenset(
    ("array", "a", "job-name", "J", "output", "o", "error", "e", "open-mode", "signal", "requeue", "no-requeue",
     "export", "export-file", "wrap", "parsable", "test-only", "wait", "W", "ntasks", "n", "nodes", "N")
)  # fmt: skip
"""Options of sbatch on which resuming, logs and states rest."""
TIME_ALLOWED = "a time with its unit: '30 min', '4 h', '2 d'"
_LEAST = {"array_parallelism": 0, "cpus": 1, "signal_lead": 1, "max_requeues": 0, "max_array_size": 0}
_DIRECT = {"partition": "--partition", "memory": "--mem", "account": "--account", "qos": "--qos"}
_COMPLAINTS = [
    (re.compile(pattern, re.IGNORECASE), key)
    for pattern, key in (
        ("partition", "partition"), ("time", "time"), ("mem", "memory"), ("account", "account"), ("qos", "qos"),
        ("gres|gpu|tres", "gpus"), ("option|feature|constraint|specification", "sbatch"),
    )
]  # fmt: skip


def sbatch_options(launcher: LauncherConfig) -> list[str]:
    """Options of sbatch for one array task.

    Args:
        launcher: the configuration group ``launcher``.

    Raises:
        UserError: for a value that cannot be right; what only the cluster knows it says itself.
    """
    refuse_keys(launcher, LOCAL_ONLY, "launcher=slurm; it is for launcher=local")
    FailurePolicy.of(launcher)
    for key, least in _LEAST.items():
        if getattr(launcher, key) < least:
            raise UserError(f"launcher.{key}", getattr(launcher, key), f"a whole number of at least {least}")
    given = {option: getattr(launcher, key) for key, option in _DIRECT.items()}
    options = [f"{option}={value}" for option, value in given.items() if value]
    options += _time(launcher)
    options += [f"--gres=gpu:{launcher.gpus}"] if launcher.gpus else []
    return [
        *options, "--nodes=1", "--ntasks=1", f"--cpus-per-task={launcher.cpus}",
        "--requeue", "--open-mode=append", "--export=ALL", f"--signal=B:USR1@{launcher.signal_lead}",
        *_extra(launcher.sbatch),
    ]  # fmt: skip


def largest_array(launcher: LauncherConfig, allowed: int | None) -> int | None:
    """Jobs that one array may carry; None where nothing limits it.

    Args:
        launcher: the configuration group ``launcher``.
        allowed: MaxArraySize of the cluster; None where it is not known.

    Raises:
        UserError: for a cluster without arrays.
    """
    if allowed is not None and allowed < 1:
        raise UserError("launcher", "slurm", "a cluster that allows job arrays (MaxArraySize is 0)")
    limits = [limit for limit in (allowed, launcher.max_array_size) if limit]
    return min(limits, default=None)


def array_slices(jobs: int, largest: int | None) -> list[tuple[int, int]]:
    """First job and number of jobs of each array that carries ``jobs`` jobs, none larger than ``largest``."""
    step = largest or max(jobs, 1)
    return [(first, min(step, jobs - first)) for first in range(0, jobs, step)]


def array_option(launcher: LauncherConfig, count: int) -> str:
    """The option of sbatch that makes an array of ``count`` jobs."""
    at_once = f"%{launcher.array_parallelism}" if launcher.array_parallelism else ""
    return f"--array=0-{count - 1}{at_once}"


def check_setup(lines: Sequence[str]) -> Sequence[str]:
    """The shell lines of ``launcher.setup``, each one line.

    Raises:
        UserError: for one that is more.
    """
    for line in lines:
        if not isinstance(line, str) or "\n" in line:
            raise UserError("launcher.setup", line, "a list of single shell lines")
    return lines


def explain_refusal(complaint: str, launcher: LauncherConfig) -> UserError:
    """What sbatch complains of, with the key that most likely caused it."""
    says = f"what SLURM accepts; it says: {complaint}"
    for pattern, key in _COMPLAINTS:
        if pattern.search(complaint) and (value := getattr(launcher, key)):
            return UserError(f"launcher.{key}", value, says)
    given = {key: getattr(launcher, key) for key in ("partition", "memory", "cpus", "gpus")}
    asked = ", ".join(f"{key}={value}" for key, value in given.items() if value)
    return UserError("launcher", launcher.name, f"{says} ({asked})")


def _time(launcher: LauncherConfig) -> list[str]:
    if launcher.time is None:
        return []
    try:
        limit = parse_budget(launcher.time)
    except UserError:
        raise UserError("launcher.time", launcher.time, TIME_ALLOWED) from None
    if limit.unit != SECONDS:
        raise UserError("launcher.time", launcher.time, TIME_ALLOWED)
    if limit.value <= launcher.signal_lead:
        raise UserError(
            "launcher.signal_lead", launcher.signal_lead, f"less than the time limit of {limit.value:.0f} s"
        )
    return [f"--time={math.ceil(limit.value / 60)}"]


def _extra(lines: Sequence[str]) -> list[str]:
    for line in lines:
        name = _option_name(line)
        if not name or name in OURS:
            raise UserError("launcher.sbatch", line, f"options of sbatch other than {', '.join(sorted(OURS))}")
    return [word for line in lines for word in shlex.split(line)]


def _option_name(line: object) -> str:
    if not isinstance(line, str):
        return ""
    if line.startswith("--"):
        return re.split(r"[=\s]", line[2:], maxsplit=1)[0]
    return line[1:2] if line.startswith("-") else ""
