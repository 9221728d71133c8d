"""Jobs on a SLURM cluster: one array task per job; the command ends when they are submitted.

The study folder is the truth. The array tasks write the states of their cells themselves; nothing polls SLURM
meanwhile, and nothing is lost when the submitting process dies.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from filelock import Timeout
from rich.console import Console

from trainlarge.config.launcher import SlurmConfig
from trainlarge.config.schema import StageConfig
from trainlarge.errors import UserError
from trainlarge.launch.launcher import ON_ITS_WAY, Ending, Forecast, JobState
from trainlarge.launch.progress import jobs_in_words
from trainlarge.launch.safe_path import SAFE_PYTHON, SHELL_LINES
from trainlarge.launch.slurm.command import SlurmRefusedError, slurm_command
from trainlarge.launch.slurm.options import (
    array_option,
    array_slices,
    explain_refusal,
    largest_array,
    sbatch_options,
)
from trainlarge.launch.slurm.state import numbers_by_name, slurm_jobs
from trainlarge.launch.slurm.submission import FOLDER, SlurmArray, Submission
from trainlarge.machine.resources import Resources
from trainlarge.sweep.files import file_lock, make_folder, write_text
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.plan import Job, Plan
from trainlarge.sweep.store import Study

FORECAST_TIMEOUT_SECONDS = 5.0
"""How long a forecast waits for SLURM, whose commands try for a minute where its configuration is not there."""
LOCK_SECONDS = 120.0
"""How long a command waits while another submits to the same study."""
_NUMBER = re.compile(r"(\d+)(?:;\S*)?")
_MAX_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d+)", re.MULTILINE)


class SlurmLauncher:
    """Submits jobs as arrays of SLURM, one array task per job, and returns."""

    label: ClassVar[str] = "SLURM"
    runs_here: ClassVar[bool] = False

    def __init__(self, config: SlurmConfig, cells: Sequence[StageConfig]) -> None:  # noqa: ARG002
        self._config, self._options = config, sbatch_options(config)
        self._largest: int | None = None

    def check(self) -> None:
        """Ask sbatch whether it takes the options, without submitting, and how large an array may be.

        Raises:
            UserError: for options that sbatch refuses, or where there is no SLURM.
        """
        self._ask("sbatch", "--test-only", *self._options, "--output=/dev/null", "--wrap=true")
        self._largest = largest_array(self._config, max_array_size(self._ask))

    def run(self, study: Study, plan: Plan, console: Console) -> Ending:
        """Submit the jobs of a plan, less the cells that SLURM or a living process has already.

        Raises:
            UserError: when SLURM refuses; arrays that it accepted before stay submitted.
        """
        with _alone(study):
            jobs = not_on_their_way(study, plan.jobs)
            console.print(
                f"SLURM: {jobs_in_words(len(jobs))} to submit, {len(plan.jobs) - len(jobs)} on their way",
                highlight=False,
            )
            if jobs:
                self._submit(study, replace(plan, jobs=tuple(jobs)), console)
        console.print(f"follow them: trainlarge status {study.name}", highlight=False, soft_wrap=True)
        return Ending(is_submitted=True)

    def forecast(self, study: Study, plan: Plan) -> Forecast:
        """The arrays that would be submitted, by what SLURM says now; a guess where it does not answer in time."""
        ask = partial(slurm_command, timeout=FORECAST_TIMEOUT_SECONDS)
        try:
            allowed, left = max_array_size(ask), not_on_their_way(study, plan.jobs)
        except (SlurmRefusedError, UserError):
            allowed, left = None, list(plan.jobs)
        slices = array_slices(len(left), largest_array(self._config, allowed))
        on_their_way = len(plan.jobs) - len(left)
        notes = [f"on their way, and not submitted again: {jobs_in_words(on_their_way)}"] if on_their_way else []
        if allowed is None:
            notes = ["no SLURM answers here: its largest array, and jobs that it may have already, are not known"]
        return Forecast(
            Resources(self._config.cpus),
            jobs_at_once=self._config.array_parallelism or None,
            commands=tuple(("sbatch", array_option(self._config, count), *self._options) for _, count in slices),
            on_their_way=None if allowed is None else on_their_way,
            notes=tuple(notes),
        )

    @staticmethod
    def jobs(study: Study) -> Counter[JobState]:
        """How many array tasks of a study are in which state."""
        return Counter(job.state for job in slurm_jobs(study))

    def _submit(self, study: Study, plan: Plan, console: Console) -> None:
        jobs = [job.cell_ids for job in plan.jobs]
        new = Submission.new(study, plan.stage, jobs, self._config, self._options, plan.command)
        submission = new.write()
        write_text(submission.script, f'{_script_head(self._config)} {shlex.quote(str(submission.path))} "$1"\n')
        for first, count in array_slices(len(jobs), self._largest):
            array = SlurmArray(None, first, count, submission.array_name(first))
            submission = self._sbatch(submission.with_array(array).write(), array)
            number = submission.arrays[-1].number
            console.print(
                f"array {number}: {jobs_in_words(count)}, logs in {submission.logs}", highlight=False, soft_wrap=True
            )

    def _sbatch(self, submission: Submission, array: SlurmArray) -> Submission:
        """Submit the last array of a submission; the submission with its number."""
        logs, name = str(submission.logs).replace("%", "%%"), array.name or ""
        command = [
            "sbatch",
            "--parsable",
            *self._options,
            array_option(self._config, array.count),
            f"--job-name={name}",
            f"--output={logs}/%A_%a.txt",
            str(submission.script),
            str(array.first),
        ]
        try:
            answer = slurm_command(*command)
        except SlurmRefusedError as error:
            submission.without_last().write()
            raise explain_refusal(str(error), self._config) from None
        return submission.numbered(array_number(answer, name)).write()

    def _ask(self, *command: str) -> str:
        try:
            return slurm_command(*command)
        except SlurmRefusedError as error:
            raise explain_refusal(str(error), self._config) from None


def array_number(answer: str, name: str) -> int:
    """The number of an array that sbatch has accepted.

    Args:
        answer: what ``sbatch --parsable`` printed: a line ``123`` or ``123;cluster``, with lines of the site or not.
        name: the array's name, by which squeue is asked where that is not one line.

    Raises:
        UserError: where squeue does not know it either.
    """
    numbers = {int(found[1]) for line in answer.splitlines() if (found := _NUMBER.fullmatch(line.strip()))}
    if len(numbers) != 1:
        numbers = set((numbers_by_name([name]) or {}).values())
    if len(numbers) != 1:
        allowed = (
            f"answered by the number of a job, but sbatch printed {answer.strip()[:200]!r}. SLURM may have the jobs: "
            f"see `squeue --name={name}`, and `scancel --name={name}` before the command is given again"
        )
        raise UserError("sbatch", "accepted", allowed)
    return numbers.pop()


def max_array_size(ask: Callable[..., str] = slurm_command) -> int:
    """MaxArraySize of the cluster, which is one more than the largest index of an array; SLURM's default is 1001.

    Raises:
        UserError: where SLURM is not installed or does not answer.
        SlurmRefusedError: where it has no controller.
    """
    line = _MAX_ARRAY_SIZE.search(ask("scontrol", "show", "config"))
    return int(line[1]) if line else 1


def not_on_their_way(study: Study, jobs: tuple[Job, ...]) -> list[Job]:
    """The jobs without the cells that are in SLURM's queue or held by a living process."""
    submitted = {cell_id for job in slurm_jobs(study) if job.state in ON_ITS_WAY for cell_id in job.cell_ids}
    left: list[Job] = []
    for job in jobs:
        waiting = [cell_id for cell_id in job.cell_ids if cell_id not in submitted]
        free = [cell_id for cell_id in waiting if not is_held(study.folder(job.stage, cell_id).path)]
        if free:
            left.append(replace(job, cell_ids=tuple(free)))
    return left


def _script_head(config: SlurmConfig) -> str:
    """The batch script up to its last command.

    The signal before the time limit goes to the batch shell: it must not kill the setup lines, nor Python before that
    listens. ``exec`` makes Python the batch step itself; behind a shell it would have under 20 ms after SIGTERM.
    """
    python = shlex.quote(config.python or sys.executable)
    command = f"exec {python} {SAFE_PYTHON} -m trainlarge.launch.slurm.task"
    return "\n".join(["#!/bin/bash", "trap '' USR1", *config.setup, *SHELL_LINES, command])


@contextmanager
def _alone(study: Study) -> Iterator[None]:
    """Keep other commands from submitting the same jobs between our look at the queue and our submission."""
    folder: Path = study.path / FOLDER
    make_folder(folder, inside=study.path)
    try:
        with file_lock(folder / ".lock", LOCK_SECONDS):
            yield
    except Timeout:
        raise UserError(
            "study",
            study.name,
            f"submitted by one command at a time; another has held the lock for {LOCK_SECONDS:.0f} s",
        ) from None
