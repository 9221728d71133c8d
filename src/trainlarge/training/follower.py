"""``python -m trainlarge.training.follower STUDY CELL...``: a rank of a job that computes and writes nothing."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from trainlarge.launch.job import RunningJob
from trainlarge.machine.threads import make_threads_yield
from trainlarge.sweep.store import Study


def main(study_path: str, *cell_ids: str) -> None:
    """Follow rank 0 through its trunk and branches."""
    # Rank 0 answers signals, saves, and ends its followers.
    for asked in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(asked, signal.SIG_IGN)
    make_threads_yield()
    # Imports torch, which reads the environment that was set above.
    from trainlarge.training.ranks import joined
    from trainlarge.training.stage import TrunkRun

    class FollowingRun(TrunkRun):
        """A run of which another process keeps the results."""

        def _write(self, *result: Any) -> None: ...

        def _keep(self, *state: Any) -> None: ...

        def _forget(self) -> None: ...

        def _keep_round(self) -> None: ...

        def _keep_time(self) -> None: ...

    study = Study(Path(study_path))
    cells = [study.folder("train", cell_id).cell() for cell_id in cell_ids]
    with joined():
        FollowingRun(RunningJob(study, "train", cells, {})).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
