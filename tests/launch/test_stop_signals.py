"""A signal that asks a job to stop leaves its cell preempted, at whatever moment it comes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from trainlarge.config.schema import TrainConfig
from trainlarge.launch.worker import PREEMPTED_STATUS
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

STOPPED_AT_RANDOM = """
import json, os, random, signal, sys, time
from pathlib import Path
from trainlarge.launch import loaded_code
from trainlarge.launch.early_stop import EarlyStop
from trainlarge.launch.worker import Assignment, run_job
from trainlarge.machine.resources import Resources

study, draw, ends, longest = Path(sys.argv[1]), random.Random(int(sys.argv[2])), [], 4.0
for cell_id in sys.argv[3:]:
    can_read, can_write = os.pipe()
    child = os.fork()
    if not child:
        stop = EarlyStop()
        os.write(can_write, b"x")
        os._exit(run_job(Assignment(study, "train", (cell_id,), Resources(1)), stop.attach))
    os.read(can_read, 1)
    # Most moments of a job are at its beginning.
    time.sleep(longest * draw.random() ** 2)
    os.kill(child, draw.choice([signal.SIGTERM, signal.SIGUSR1]))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(1500)])])
def test_a_job_that_is_stopped_at_a_random_moment_is_preempted(
    count: int, study: Study, tiny: Callable[..., TrainConfig]
) -> None:
    configs = [tiny(f"seed={seed}", "budget=100000000 steps", "impl.threads=1") for seed in range(count)]
    cells = make_plan(study, "train", make_cells("train", configs)).cells
    command = [sys.executable, "-c", STOPPED_AT_RANDOM, str(study.path), "1", *(cell.id for cell in cells)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1400, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [PREEMPTED_STATUS] * count
    for cell in cells:
        folder = study.folder("train", cell.id)
        status = folder.status()
        assert status.state is State.PREEMPTED and (status.error or "").startswith("stopped by SIG"), status
        assert not is_held(folder.path)
