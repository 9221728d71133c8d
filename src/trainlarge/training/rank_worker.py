"""``python -m trainlarge.training.rank_worker STUDY CELL...``: a rank of a job that computes and writes nothing."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from trainlarge.launch.job import RunningJob
from trainlarge.machine.threads import make_threads_yield
from trainlarge.sweep.store import Study


def main(study_path: str, *cell_ids: str) -> None:
    """Train the same trunk and branches as rank 0."""
    # Rank 0 answers signals, saves, and ends the other ranks.
    for stop_signal in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(stop_signal, signal.SIG_IGN)
    make_threads_yield()
    # Imports torch, which reads the environment that was set above.
    from trainlarge.training.ranks import joined
    from trainlarge.training.trunk import compute_only

    study = Study(Path(study_path))
    cells = [study.folder("train", cell_id).cell() for cell_id in cell_ids]
    with joined():
        compute_only(RunningJob(study, "train", cells, {}))


if __name__ == "__main__":
    main(*sys.argv[1:])
