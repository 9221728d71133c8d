"""What a job's own process does: claim the cells, send all output to the log, run the stage."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.machine.cores import CORES
from trainlarge.machine.devices import MASK
from trainlarge.machine.provenance import code
from trainlarge.sweep.files import open_to_append
from trainlarge.sweep.stages import runner
from trainlarge.sweep.store import CellFolder, Study

FAILED_STATUS = 1
PREEMPTED_STATUS = 75
"""Asked to stop, with cells that are not done (EX_TEMPFAIL of sysexits.h)."""


def run_job(
    study_path: Path,
    stage: str,
    cell_ids: list[str],
    cores: int,
    on_claim: Callable[[RunningJob], None] = lambda job: None,
) -> int:
    """Run the cells that can be claimed.

    Args:
        study_path: the study folder.
        cell_ids: cells of one job.
        cores: CPU cores that this job may use, unless ``impl.threads`` says otherwise.
        on_claim: told of the job before it runs.

    Returns:
        Exit status: 0, ``FAILED_STATUS`` or ``PREEMPTED_STATUS``.
    """
    code()
    study = Study(study_path)
    job = RunningJob.claim(study, stage, cell_ids)
    on_claim(job)
    if not job.cells:
        return 0
    _redirect_output([job.folder(cell.id) for cell in job.cells])
    _use_cores(cores)
    if MASK in os.environ:
        print(f"{MASK}={os.environ[MASK]}", flush=True)
    try:
        with job.running():
            # A stop that was asked for before the heart beats is heard here, without loading a model first.
            job.check()
            runner(stage).run(job)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return FAILED_STATUS
    except Exception:
        traceback.print_exc()
        return FAILED_STATUS
    return PREEMPTED_STATUS if job.is_asked_to_stop else 0


def prepare_jobs(study_path: Path, stage: str, cell_ids: list[str], cores: int) -> None:
    """Do what the jobs of these cells share before the first of them starts; what it prints goes to a log of its own.

    Args:
        study_path: the study folder.
        cell_ids: as ``Description.to_prepare`` gives them.
        cores: CPU cores that each job will have.
    """
    study = Study(study_path)
    _print_to(study_path / f"prepare-{stage}.log")
    _use_cores(cores)
    runner(stage).prepare(study, [study.folder(stage, cell_id).cell() for cell_id in cell_ids])


def _use_cores(cores: int) -> None:
    # What the stage sets its threads by, since the fork server has loaded torch already.
    os.environ[CORES] = str(cores)
    # OpenMP reads this once, when it is loaded: for a task of SLURM and for processes that the job starts.
    os.environ["OMP_NUM_THREADS"] = str(cores)


def _redirect_output(folders: list[CellFolder]) -> None:
    """Append stdout and stderr to the first cell's log; the logs of the others lead to it."""
    first, *others = (folder.log for folder in folders)
    if first.is_symlink():
        first.unlink()
    for log in others:
        _lead(log, Path("..") / first.parent.name / first.name)
    _print_to(first)


def _print_to(log: Path) -> None:
    """Append what this process prints to ``log``."""
    descriptor = open_to_append(log)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _lead(log: Path, target: Path) -> None:
    # A log of an earlier job stays: other cells of that job point to it.
    if log.exists() and not log.is_symlink():
        with os.fdopen(open_to_append(log), "a", encoding="utf-8") as file:
            file.write(f"goes on in {target}\n")
        return
    log.unlink(missing_ok=True)
    log.symlink_to(target)
