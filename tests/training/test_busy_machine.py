"""Steps that seconds buy beside other programs, against those on a quiet machine: `make test-alone`."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from trainlarge.launch.engine import run_cells
from trainlarge.sweep.step_times import budgets_missed
from trainlarge.sweep.store import Study

NEIGHBOUR = """
import random, sys, time
draw = random.Random(int(sys.argv[1]))
while True:
    end = time.perf_counter() + draw.uniform(0.2, 3)
    while time.perf_counter() < end:
        sum(range(1000))
    time.sleep(draw.uniform(0.2, 3))
"""
WIDTHS, BUDGETS = (32, 64, 128), (4, 16)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many programs that each work and rest for 0.2 to 3 s at random."""
    processes = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(seed)]) for seed in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.alone
@pytest.mark.timeout(1800)
def test_seconds_buy_as_many_steps_beside_three_programs_that_work_and_rest(
    compose: Callable[..., dict[str, Any]], study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 25 %, when the command has been run as often as it asked for, which is told once at most."""
    # As a user's command: threads spin for a while.
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)

    def bought(name: str) -> dict[tuple[int, int], int]:
        configs = {
            (width, budget): compose(
                "train", f"study={name}", "tracking=none", "data.vocab_size=1024", "data.sequence_length=64",
                "optim.batch=1024", "task.mask_rate=0.4", "task.evaluation_rows=64", "arch.depth=1", "impl.device=cpu",
                f"arch.width={width}", f"budget={budget} s",
            )
            for width in WIDTHS for budget in BUDGETS
        }  # fmt: skip
        place = Study(study.path.with_name(name))
        for _ in range(2):
            plan = run_cells("train", list(configs.values()), Console(file=io.StringIO())).plan
            if not budgets_missed(place):
                break
        return {
            (cell.config.arch.width, round(float(cell.config.budget.split()[0]))): int(
                place.folder("train", cell.id).record_data()["step"]
            )
            for cell in plan.cells
        }

    quiet = bought("quiet")
    with neighbours(3):
        busy = bought("busy")
    ratios = {key: busy[key] / quiet[key] for key in quiet}
    assert all(0.75 < ratio < 1.25 for ratio in ratios.values()), (ratios, quiet, busy)
