"""Jobs on a SLURM cluster: one array task a job, submitted and let go.

The study folder is the truth. The array tasks write the states of their cells themselves; nothing polls SLURM
meanwhile, and nothing is lost when the submitting process dies.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from trainlarge.config.launcher import LauncherConfig
from trainlarge.errors import UserError
from trainlarge.launch.safe_path import SAFE_PYTHON, SHELL_LINES
from trainlarge.launch.slurm.command import SlurmRefusedError, slurm_command
from trainlarge.launch.slurm.options import (
    array_option,
    array_slices,
    check_setup,
    explain_refusal,
    largest_array,
    sbatch_options,
)
from trainlarge.launch.slurm.state import ON_ITS_WAY, slurm_jobs
from trainlarge.launch.slurm.submission import FOLDER, SlurmArray, Submission
from trainlarge.sweep.files import write_text
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.store import Study

LOCK_SECONDS = 120.0
"""How long a command waits while another submits to the same study."""
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)


class SlurmLauncher:
    """Submits jobs as arrays of SLURM.

    Args:
        launcher: the configuration group ``launcher``.

    Raises:
        UserError: for options that sbatch refuses, or where there is no SLURM.
    """

    def __init__(self, launcher: LauncherConfig) -> None:
        self._launcher = launcher
        self._options = sbatch_options(launcher)
        self._head = _script_head(launcher)
        self._largest = self._check()

    def submit(self, study: Study, plan: Plan, console: Console) -> Submission | None:
        """Submit the jobs of ``plan``, less the cells that SLURM or a living process has already; then return.

        Raises:
            UserError: when SLURM refuses; arrays that it accepted before stay submitted.
        """
        with _alone(study):
            jobs = not_on_their_way(study, plan.jobs)
            console.print(
                f"SLURM: {len(jobs)} jobs to submit, {len(plan.jobs) - len(jobs)} on their way", highlight=False
            )
            submission = self._submit(study, replace(plan, jobs=tuple(jobs)), console) if jobs else None
        console.print(f"follow them: trainlarge status {study.name}", highlight=False, soft_wrap=True)
        return submission

    def _submit(self, study: Study, plan: Plan, console: Console) -> Submission:
        jobs = [job.cell_ids for job in plan.jobs]
        new = Submission.new(study, plan.stage, jobs, self._launcher, self._options, plan.command)
        submission = new.write()
        write_text(submission.script, f'{self._head} {shlex.quote(str(submission.path))} "$1"\n')
        for first, count in array_slices(len(jobs), self._largest):
            number = self._sbatch(submission, first, count)
            submission = submission.with_array(SlurmArray(number, first, count)).write()
            console.print(f"array {number}: {count} jobs, logs in {submission.logs}", highlight=False, soft_wrap=True)
        return submission

    def _sbatch(self, submission: Submission, first: int, count: int) -> int:
        logs = str(submission.logs).replace("%", "%%")
        answer = self._ask(
            "sbatch", "--parsable", *self._options, array_option(self._launcher, count),
            f"--job-name={submission.study.name}-{submission.stage}", f"--output={logs}/%A_%a.txt",
            str(submission.script), str(first),
        )  # fmt: skip
        return int(answer.partition(";")[0])

    def _check(self) -> int | None:
        """Whether sbatch takes the options, without submitting; the largest array that it takes."""
        self._ask("sbatch", "--test-only", *self._options, "--output=/dev/null", "--wrap=true")
        return largest_array(self._launcher, max_array_size(self._ask))

    def _ask(self, *command: str) -> str:
        try:
            return slurm_command(*command)
        except SlurmRefusedError as error:
            raise explain_refusal(str(error), self._launcher) from None


def max_array_size(ask: Callable[..., str] = slurm_command) -> int:
    """MaxArraySize of the cluster, which is one more than the largest index of an array; SLURM's default is 1001.

    Raises:
        UserError: where SLURM is not installed or does not answer.
        SlurmRefusedError: where it has no controller.
    """
    found = _MAX_ARRAY_SIZE.search(ask("scontrol", "show", "config"))
    return int(found[1]) if found else 1


def not_on_their_way(study: Study, jobs: tuple[Job, ...]) -> list[Job]:
    """The jobs with only those cells that nobody has: neither SLURM's queue nor a living process."""
    submitted = {cell_id for job in slurm_jobs(study) if job.state in ON_ITS_WAY for cell_id in job.cell_ids}
    rest = [replace(job, cell_ids=tuple(_free(study, job, submitted))) for job in jobs]
    return [job for job in rest if job.cell_ids]


def _free(study: Study, job: Job, submitted: set[str]) -> Iterator[str]:
    for cell_id in job.cell_ids:
        if cell_id not in submitted and not is_held(study.folder(job.stage, cell_id).path):
            yield cell_id


def _script_head(launcher: LauncherConfig) -> str:
    """The batch script up to its last command.

    The signal before the time limit goes to the batch shell: it must not kill the setup lines, nor Python before that
    listens. ``exec`` makes Python the batch step itself; behind a shell it would have under 20 ms after SIGTERM.
    """
    python = shlex.quote(launcher.python or sys.executable)
    setup = check_setup(launcher.setup)
    command = f"exec {python} {SAFE_PYTHON} -m trainlarge.launch.slurm.task"
    return "\n".join(["#!/bin/bash", "trap '' USR1", *setup, *SHELL_LINES, command])


@contextmanager
def _alone(study: Study) -> Iterator[None]:
    """Keep other commands from submitting the same jobs between our look at the queue and our submission."""
    folder: Path = study.path / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise UserError(
            "study", study.name, f"one submission at a time; another has lasted for {LOCK_SECONDS:.0f} s"
        ) from None
