"""The state of submitted jobs: from the cells' own files first, then from squeue, then from sacct where it works.

Nothing here waits: one look, one answer. ``squeue`` decides whether a job is still to come; accounting may be off, and
lags where it is on, so it only adds words to jobs that squeue has forgotten.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from trainlarge.errors import UserError
from trainlarge.launch.launcher import JobState
from trainlarge.launch.slurm.command import SlurmRefusedError, slurm_command
from trainlarge.launch.slurm.submission import Submission, submissions
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

GRACE_SECONDS = 10.0
"""A job submitted this lately may not be in SLURM's list yet."""
TIMEOUT_SECONDS = 20.0
UNFINISHED = frozenset({State.MISSING, State.QUEUED, State.RUNNING, State.PREEMPTED})
"""States of a cell that a process still has to end."""
_WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"})
_ENDED = frozenset(
    (
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "SPECIAL_EXIT",
        "TIMEOUT",
    )
)

_ROW = re.compile(r"(\d+)\|(\d+)\|([A-Z_]+)\|(.*)")
_ACCOUNTED = re.compile(r"(\d+)_(\d+)\|(.*)")
_NAMED = re.compile(r"(\d+)\|(.+)")
_STATE = re.compile(r"[A-Z_]+")
"""Lines of an answer; a site may add others."""

Task = tuple[int | None, int]
"""Number of an array and index in it."""


@dataclass(frozen=True)
class SlurmJob:
    """One submitted job."""

    submission: str
    """Name of its file in ``<study>/slurm``, without the ending."""
    stage: str
    """Stage of its cells."""
    cell_ids: tuple[str, ...]
    """Its cells."""
    array: int | None
    """SLURM's number of the array; None where it never told it and does not know its name."""
    index: int
    """Index of its array task: SLURM calls it ``<array>_<index>``."""
    state: JobState
    """Where it stands."""
    slurm_says: str
    """SLURM's own word, with its reason where it has one: ``PENDING (Resources)``; empty where it has none."""


def slurm_jobs(study: Study) -> list[SlurmJob]:
    """All submitted jobs of a study, the newest submission first, less those that were submitted again since.

    It works from the study folder and SLURM's command line; where SLURM is not to be had, unfinished jobs are
    ``unknown``. A study that was never submitted needs no SLURM and has none.
    """
    known = submissions(study)
    if not known:
        return []
    names = [array.name for submission in known for array in submission.arrays if array.number is None and array.name]
    numbers = numbers_by_name(names) if names else {}
    known = [submission.with_numbers(numbers or {}) for submission in known]
    queue = None if numbers is None else _queue(array.number for each in known for array in each.arrays)
    jobs = _newest_only(job for submission in known for job in _jobs(submission, queue))
    return _with_accounting(jobs)


def own_state(job_number: str) -> str:
    """SLURM's word for the state of the job that asks; empty where SLURM does not answer."""
    try:
        lines = _ask("squeue", "-h", "-j", job_number, "-o", "%T")
    except (UserError, SlurmRefusedError):
        return ""
    return next((line for line in lines if _STATE.fullmatch(line)), "")


def numbers_by_name(names: Sequence[str]) -> dict[str, int] | None:
    """Name of an array -> its number, for those that squeue knows; None where it does not answer."""
    try:
        lines = _ask("squeue", "-h", "-t", "all", f"--name={','.join(names)}", "-o", "%F|%j")
    except (UserError, SlurmRefusedError):
        return None
    found = filter(None, map(_NAMED.fullmatch, lines))
    return {name: int(number) for number, name in (match.groups() for match in found) if name in names}


def _jobs(submission: Submission, queue: dict[Task, str] | None) -> Iterator[SlurmJob]:
    study, name = submission.study, submission.path.stem
    for array in submission.arrays:
        for index in range(array.count):
            cell_ids = submission.jobs[array.first + index]
            says = (queue or {}).get((array.number, index), "")
            state = _state(says, [study.folder(submission.stage, cell_id) for cell_id in cell_ids], queue is not None)
            if state is JobState.LOST and not says and time.time() - submission.created < GRACE_SECONDS:
                state = JobState.PENDING
            yield SlurmJob(name, submission.stage, cell_ids, array.number, index, state, says)


def _state(says: str, folders: list[CellFolder], slurm_answers: bool) -> JobState:
    word = says.partition(" ")[0]
    if word and word not in _ENDED:
        return JobState.PENDING if word in _WAITING else JobState.RUNNING
    unfinished = [folder for folder in folders if folder.status().state in UNFINISHED]
    if not unfinished:
        return JobState.ENDED
    if any(is_held(folder.path) for folder in unfinished):
        return JobState.RUNNING
    return JobState.LOST if slurm_answers else JobState.UNKNOWN


def _newest_only(jobs: Iterable[SlurmJob]) -> list[SlurmJob]:
    seen: set[str] = set()
    kept = []
    for job in jobs:
        if job.state is not JobState.LOST or not seen.issuperset(job.cell_ids):
            kept.append(job)
        seen.update(job.cell_ids)
    return kept


def _queue(numbers: Iterable[int | None]) -> dict[Task, str] | None:
    """What squeue says of each array task; None where it does not answer."""
    asked = ",".join(str(number) for number in numbers if number is not None)
    try:
        lines = _ask("squeue", "-h", "-r", "-t", "all", "-j", asked, "-o", "%F|%K|%T|%r") if asked else []
    except SlurmRefusedError as error:
        # One number alone that SLURM has forgotten is an error to squeue, of several it says nothing.
        return {} if "Invalid job id" in str(error) else None
    except UserError:
        return None
    rows = (match.groups() for match in map(_ROW.fullmatch, lines) if match)
    return {
        (int(array), int(index)): state if reason in ("None", "") else f"{state} ({reason})"
        for array, index, state, reason in rows
    }


def _with_accounting(jobs: list[SlurmJob]) -> list[SlurmJob]:
    """The jobs with sacct's word where squeue has none any more."""
    lost = (job for job in jobs if not job.slurm_says and job.state is JobState.LOST)
    forgotten = sorted({job.array for job in lost if job.array is not None})
    ended = _accounting(forgotten) if forgotten else {}
    return [replace(job, slurm_says=job.slurm_says or ended.get((job.array, job.index), "")) for job in jobs]


def _accounting(numbers: list[int]) -> dict[Task, str]:
    try:
        command = ["sacct", "-X", "-n", "-P", "-j", ",".join(map(str, numbers)), "-o", "JobID,State"]
        lines = _ask(*command)
    except (UserError, SlurmRefusedError):
        return {}
    rows = (match.groups() for match in map(_ACCOUNTED.fullmatch, lines) if match)
    return {(int(array), int(index)): state for array, index, state in rows}


def _ask(*command: str) -> list[str]:
    return [line.strip() for line in slurm_command(*command, timeout=TIMEOUT_SECONDS).splitlines() if line.strip()]
