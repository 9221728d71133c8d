"""What one command does about cells that another process has: real folders and leases, no processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import made
from trainlarge.config.launcher import LauncherConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.job import RunningJob
from trainlarge.launch.local import job_queue
from trainlarge.launch.local.job_queue import JobQueue
from trainlarge.sweep.plan import Plan, make_cells, make_plan
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study


@pytest.fixture
def plan(tiny: Callable[..., TrainConfig], study: Study, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two jobs of one cell each, and a queue that looks elsewhere at once."""
    monkeypatch.setattr(job_queue, "LOOK_SECONDS", 0)
    return make_plan(study, "train", make_cells("train", [tiny("seed=0"), tiny("seed=1")]))


def hold(study: Study, cell_id: str) -> RunningJob:
    """Claim a cell as another command would: this process lives, and does not work for the queue."""
    return RunningJob.claim(study, "train", [cell_id])


def write(study: Study, cell_id: str, state: State) -> None:
    study.folder("train", cell_id).write_status(Status(state))


def test_a_held_cell_is_left_to_its_holder_and_not_run_again_once_done(study: Study, plan: Plan) -> None:
    first, second = (job.cell_ids[0] for job in plan.jobs)
    other, queue = hold(study, first), JobQueue(study, plan, LauncherConfig())
    mine = queue.take()
    assert mine and mine.cell_ids == (second,) and queue.take() is None
    write(study, second, State.FAILED)
    queue.ended(mine, was_stopped=False)
    queue.look_elsewhere()
    assert queue.is_open and queue.take() is None and queue.elsewhere[0].cell_ids == (first,)
    other.finish(first, made.any_record(first))
    queue.look_elsewhere()
    assert not queue.is_open and queue.take() is None


@pytest.mark.parametrize("left", [State.PREEMPTED, State.QUEUED, State.RUNNING])
def test_what_a_holder_leaves_is_taken_over(left: State, study: Study, plan: Plan) -> None:
    first = plan.jobs[0].cell_ids[0]
    other, queue = hold(study, first), JobQueue(study, plan, LauncherConfig())
    assert queue.take() != plan.jobs[0]
    other._held[first].lease.release()
    write(study, first, left)
    queue.look_elsewhere()
    assert queue.take() == plan.jobs[0]


@pytest.mark.parametrize(("config", "again"), [(LauncherConfig(), False), (LauncherConfig(retries=1), True)])
def test_a_failure_elsewhere_counts_as_one(config: LauncherConfig, again: bool, study: Study, plan: Plan) -> None:
    first = plan.jobs[0].cell_ids[0]
    other, queue = hold(study, first), JobQueue(study, plan, config)
    queue.take()
    other.fail(first, ValueError("broken"))
    queue.look_elsewhere()
    assert (queue.take() is not None) == again


def test_without_waiting_held_cells_are_nobody_s_business(study: Study, plan: Plan) -> None:
    hold(study, plan.jobs[0].cell_ids[0])
    queue = JobQueue(study, plan, LauncherConfig(wait=False))
    assert queue.take() == plan.jobs[1] and queue.take() is None and not queue.is_open


def test_a_job_that_was_asked_to_stop_is_not_started_again(study: Study, plan: Plan) -> None:
    queue = JobQueue(study, plan, LauncherConfig())
    job = queue.take()
    assert job
    write(study, job.cell_ids[0], State.PREEMPTED)
    queue.ended(job, was_stopped=True)
    queue.look_elsewhere()
    assert queue.take() == plan.jobs[1] and queue.take() is None


def test_nothing_is_given_out_after_too_many_failures(study: Study, plan: Plan) -> None:
    queue = JobQueue(study, plan, LauncherConfig(max_failures=1))
    job = queue.take()
    assert job and queue.is_open
    write(study, job.cell_ids[0], State.FAILED)
    queue.ended(job, was_stopped=False)
    assert queue.take() is None and not queue.is_open and "max_failures=1" in (queue.stop_reason or "")
