"""Calls of SLURM's commands, each with a timeout."""

from __future__ import annotations

import os
import re
import subprocess

from trainlarge.errors import UserError

TIMEOUT_SECONDS = 60.0
"""How long one command may take."""
_INHERITED = ("SLURM_", "SBATCH_", "SRUN_")
_CONFIGURATION = "SLURM_CONF"
_PREFIX = re.compile(
    "^(?:(?:sbatch|squeue|scontrol|sacct|error|fatal|slurm_load_jobs error|allocation failure"
    "|Batch job submission failed): )+"
)


class SlurmRefusedError(RuntimeError):
    """A command of SLURM ended with an error, whose first line this is."""


def slurm_command(*arguments: str, timeout: float = TIMEOUT_SECONDS) -> str:
    """What a command of SLURM prints.

    Args:
        arguments: the command and its options.
        timeout: seconds after which it is given up.

    Raises:
        UserError: where the command is not installed or does not answer.
        SlurmRefusedError: when it ends with an error.
    """
    try:
        done = subprocess.run(
            arguments,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise UserError("launcher", "slurm", f"used on a machine with SLURM: {arguments[0]} is not here") from None
    except subprocess.TimeoutExpired:
        raise UserError(
            "launcher", "slurm", f"used where SLURM answers: {arguments[0]} was silent for {timeout:.0f} s"
        ) from None
    if done.returncode:
        raise SlurmRefusedError(first_complaint(done.stderr) or f"{arguments[0]} ended with status {done.returncode}")
    return done.stdout


def clean_environment() -> dict[str, str]:
    """This environment without what an enclosing job says of itself, which sbatch would take for options."""
    return {
        name: value for name, value in os.environ.items() if name == _CONFIGURATION or not name.startswith(_INHERITED)
    }


def first_complaint(errors: str) -> str:
    """The first line of what SLURM printed to stderr as an error, without the name of the command.

    A site's own lines, such as a greeting, may come before it.
    """
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return next((_PREFIX.sub("", line) for line in lines if _PREFIX.match(line)), lines[0] if lines else "")
