"""What a job's own process leaves behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from trainlarge.config.schema import TrainConfig
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

RUN = """
import sys
from pathlib import Path
from trainlarge.launch.worker import Assignment, run_job
from trainlarge.machine.resources import Resources

run_job(Assignment(Path(sys.argv[1]), "train", tuple(sys.argv[2:]), Resources(1)))
"""


def run(study: Study, *cell_ids: str) -> None:
    """Run a job in a process of its own."""
    subprocess.run([sys.executable, "-c", RUN, str(study.path), *cell_ids], check=True, timeout=120)


@pytest.mark.long
def test_a_log_stays_when_a_later_job_begins_with_another_cell(study: Study, tiny: Callable[..., TrainConfig]) -> None:
    broken = [tiny("data.vocab_size=100000", f"budget={steps} steps") for steps in (20, 40, 60)]
    for cell in make_cells("train", broken):
        study.folder("train", cell.id).freeze(cell)
    first, second, new = study.folders("train")
    run(study, first.id, second.id)
    said = first.log.read_text()
    assert "data.vocab_size=100000" in said and second.log.samefile(first.log)
    run(study, new.id, first.id)
    added = first.log.read_text().removeprefix(said)
    assert added.split(maxsplit=2)[2] == f"{first.id} continued in ../{new.id}/log.txt\n"
    assert second.log.read_text().startswith(said) and "data.vocab_size=100000" in new.log.read_text()
    run(study, first.id, second.id, new.id)
    assert first.log.read_text().count("data.vocab_size=100000") == 2 * said.count("data.vocab_size=100000")
    assert second.log.samefile(first.log) and not new.log.samefile(first.log)


def test_a_damaged_configuration_fails_its_own_cell_alone(study: Study, tiny: Callable[..., TrainConfig]) -> None:
    cells = make_plan(study, "train", make_cells("train", [tiny(f"budget={steps} steps") for steps in (20, 40)])).cells
    first, second = (study.folder("train", cell.id) for cell in cells)
    (first.path / "config.yaml").write_text("arch: {")
    job = RunningJob.claim(study, "train", [first.id, second.id])
    assert [cell.id for cell in job.cells] == [second.id]
    assert first.status().state is State.FAILED and "config.yaml" in (first.status().error or "")
    assert not is_held(first.path) and is_held(second.path)
