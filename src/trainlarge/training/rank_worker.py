"""A rank of a job that computes its share and writes nothing.

python -m trainlarge.training.rank_worker --cores N --jobs-per-device N --error-to DESCRIPTOR STUDY CELL...
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

from trainlarge.launch.error_line import error_line
from trainlarge.launch.job import RunningJob
from trainlarge.launch.job_log import show_messages
from trainlarge.machine.environment import make_threads_yield
from trainlarge.machine.resources import Resources
from trainlarge.sweep.store import Study


def main(study_path: Path, cell_ids: list[str], resources: Resources) -> None:
    """Train the same trunk and branches as rank 0.

    Args:
        study_path: folder of the study.
        cell_ids: train cells of the job, in its order.
        resources: cores and GPUs of the job.
    """
    # Rank 0 answers signals, saves, and ends the other ranks.
    for stop_signal in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(stop_signal, signal.SIG_IGN)
    make_threads_yield()
    # Imports torch, which reads the environment that was set above.
    from trainlarge.training.ranks import joined
    from trainlarge.training.trunk import compute_only

    show_messages(cell_ids[0])
    study = Study(study_path)
    cells = [study.folder("train", cell_id).cell() for cell_id in cell_ids]
    with joined():
        compute_only(RunningJob(study, "train", cells, {}, resources))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("cells", nargs="+")
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--jobs-per-device", type=int, required=True)
    parser.add_argument("--error-to", type=int, required=True)
    given = parser.parse_args()
    try:
        main(given.study, given.cells, Resources(given.cores, jobs_per_device=given.jobs_per_device))
    except Exception as error:
        os.write(given.error_to, f"{time.monotonic()} {error_line(error)}".encode())
        raise
