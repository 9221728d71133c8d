"""Cells whose folders cannot be claimed fail alone, in a line; what was claimed beside them runs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch import job, job_log
from trainlarge.launch.job import RunningJob, change_status
from trainlarge.launch.local.job_queue import JobQueue
from trainlarge.launch.worker import FAILED_STATUS, Assignment, prepare_jobs, run_job
from trainlarge.machine.resources import Resources
from trainlarge.sweep.lease import Lease, is_held
from trainlarge.sweep.plan import Plan, make_cells, make_plan
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]


@pytest.fixture
def plan(study: Study, tiny: Tiny) -> Plan:
    return make_plan(study, "train", make_cells("train", [tiny(f"budget={steps} steps") for steps in (20, 40)]))


def test_a_cell_whose_lease_folder_is_a_file_fails_alone(
    study: Study, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = (study.folder("train", cell.id) for cell in plan.cells)
    (bad.path / "lease").write_text("")
    running = RunningJob.claim(study, "train", [bad.id, good.id])
    assert [cell.id for cell in running.cells] == [good.id] and running.unclaimed == (bad.id,)
    [line, *_] = caplog.messages
    assert (
        line.startswith(f"cell {bad.id} cannot be claimed: {bad.path}/lease=a file is not valid") and "\n" not in line
    )


def test_a_status_that_cannot_be_written_leaves_the_cell_to_others(study: Study, plan: Plan) -> None:
    folder = study.folder("train", plan.cells[0].id)
    (folder.path / "status.json").mkdir()
    (folder.path / "status.json" / "stray").touch()
    with pytest.raises(UserError, match="a folder with files"):
        change_status(folder, "killed", State.FAILED)
    assert not is_held(folder.path)


def test_a_disk_that_is_full_for_a_moment_fails_a_cell_with_its_error(
    study: Study, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, write = study.folder("train", plan.cells[0].id), CellFolder.write_status
    fails = iter([True])

    def full(self: CellFolder, status: object) -> None:
        if next(fails, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, status)  # type: ignore[arg-type]

    monkeypatch.setattr(CellFolder, "write_status", full)
    assert not RunningJob.claim(study, "train", [folder.id]).cells
    assert folder.status().state is State.FAILED
    assert folder.status().error == "it cannot be claimed: [Errno 28] No space left on device"
    assert not is_held(folder.path)


def test_a_cell_that_can_never_be_claimed_is_tried_as_often_as_cells_may_fail(
    study: Study, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> Lease:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    monkeypatch.setattr(job.Lease, "acquire", fails)
    queue, tried = JobQueue(study, plan, replace(plan.cells[0].config.launcher, retries=1)), 0
    while queue.is_open and tried < 10:
        taken = queue.take()
        assert taken is not None
        tried += len(taken.cell_ids)
        assert not RunningJob.claim(study, "train", taken.cell_ids).cells
        queue.ended(taken, was_stopped=False, has_failed=True)
    assert tried == 2 * len(plan.cells)


@pytest.mark.parametrize("damage", ["a folder", "no space"])
def test_a_log_that_cannot_be_written_fails_the_job_in_a_line(
    study: Study, plan: Plan, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study.folder("train", plan.cells[0].id)
    if damage == "a folder":
        (folder.log / "notes").mkdir(parents=True)
    else:
        monkeypatch.setattr(job_log, "open_to_append", no_space)
    assert run_job(Assignment(study.path, "train", (folder.id,), Resources(1))) == FAILED_STATUS
    assert folder.status().state is State.FAILED and "log.txt" in str(folder.status().error)
    assert not is_held(folder.path) and not any(record.exc_info for record in caplog.records)


def test_what_jobs_share_is_left_to_them_where_its_log_cannot_be_written(
    study: Study, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    (study.path / "prepare-train.log" / "notes").mkdir(parents=True)
    prepare_jobs(Assignment(study.path, "train", (plan.cells[0].id,), Resources(1)))
    [line] = caplog.messages
    assert line.startswith("not prepared together: ") and "prepare-train.log" in line


def no_space(path: Path) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_logs_of_a_job_need_no_links(study: Study, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def symlink_to(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "symlink_to", symlink_to)
    monkeypatch.setattr(job_log, "log_to_file", lambda path, cell: None)
    first, second = (study.folder("train", cell.id) for cell in plan.cells)
    for times in (1, 2):
        job_log.log_to_cells([first, second])
        said = second.log.read_text()
        assert said.count(f"{second.id} continued in ../{first.id}/log.txt\n") == times


@pytest.mark.long
def test_the_program_says_so_in_a_line(study: Study, plan: Plan, tiny_overrides: list[str]) -> None:
    for cell in plan.cells:
        (study.folder("train", cell.id).path / "lease").write_text("")
    command = [sys.executable, "-m", "trainlarge", "train", "-m", *tiny_overrides, "budget=20 steps,40 steps"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in printed, printed
    assert "lease=a file is not valid: must be a folder: remove the file" in printed
