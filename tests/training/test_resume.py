"""A run that was stopped, killed or extended ends with the same bits as one that was never touched."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.launch.worker import Assignment, run_job
from trainlarge.machine.probe import StepTiming
from trainlarge.machine.resources import Resources
from trainlarge.results.comparable import timed
from trainlarge.results.frames import load_study
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.sealed import read_sealed, write_sealed
from trainlarge.sweep.status import CellProgress, State
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training import context as training_context
from trainlarge.training import resume
from trainlarge.training.clocks import Seconds
from trainlarge.training.loop import Snapshot
from trainlarge.training.resume import TrainState, TrunkStates
from trainlarge.training.run_timing import RunTiming
from trainlarge.training.trunk_folder import TRUNK
from trainlarge.training.trunk_time import TrunkTime

Tiny = Callable[..., TrainConfig]
Run = Callable[..., list[CellFolder]]
CLOCKS = {"train_seconds", "model_seconds", "wall_seconds"}
FP32 = "impl.precision=fp32"


def result(folder: CellFolder) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Weights, and the curve without its clocks."""
    rows = [{key: value for key, value in row.items() if key not in CLOCKS} for row in folder.metrics()]
    return load_file(folder.checkpoint / "model.safetensors"), rows


def assert_same(one: tuple[dict[str, Tensor], Any], other: tuple[dict[str, Tensor], Any]) -> None:
    assert one[1] == other[1]
    assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())


@pytest.fixture
def untouched(tiny: Tiny, run_here: Run, study: Study) -> Callable[..., Any]:
    """Results of the cells of a job that nothing disturbed; the study is empty afterwards."""

    def run(configs: list[dict[str, Any]]) -> list[Any]:
        results = [result(folder) for folder in run_here("train", configs)]
        shutil.rmtree(study.path)
        return results

    return run


class Stopped(Exception):
    """Stands for a process that dies at a certain step."""


ROBERTA = ["arch=roberta", "arch.dropout=0.1", "arch.positions=18"]
SOON = [([], 32), ([], 59), (["schedule=matched"], 17), (ROBERTA, 47)]
LATE = [
    (overrides, step)
    for overrides in ([], ["schedule=matched"], ROBERTA)
    for step in (3, 17, 32, 47, 59)
    if (overrides, step) not in SOON
]
STOPS = [*SOON, *(pytest.param(*stop, marks=pytest.mark.long) for stop in LATE)]
"""Configurations, and the steps after which they are stopped: in the trunk, in a branch, at their ends."""


@pytest.mark.parametrize(("overrides", "step"), STOPS, ids=str)
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(
    tiny: Tiny,
    run_here: Run,
    untouched: Any,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    step: int,
) -> None:
    configs = [tiny(FP32, "impl.save_seconds=0", f"budget={steps} steps", *overrides) for steps in (40, 60)]
    configs = configs[1:] if "schedule=matched" in overrides else configs
    expected = untouched(configs)
    check, steps = RunningJob.check, []

    def die(job: RunningJob) -> None:
        check(job)
        steps.append(1)
        if len(steps) == step:
            raise Stopped

    monkeypatch.setattr(RunningJob, "check", die)
    with pytest.raises(Stopped):
        run_here("train", configs)
    monkeypatch.setattr(RunningJob, "check", check)
    folders = run_here("train", configs)
    assert any(folder.record_data()["resumed_at"] for folder in folders)
    for folder, one in zip(folders, expected, strict=True):
        assert_same(result(folder), one)


@pytest.mark.parametrize(
    "damage",
    ["truncated", "flipped", *(pytest.param(name, marks=pytest.mark.long) for name in ("no meta", "torn meta"))],
)
def test_a_damaged_state_is_noticed_and_the_one_before_is_used(
    tiny: Tiny, run_here: Run, untouched: Any, study: Study, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    config = tiny(FP32, "impl.save_seconds=0", "budget=60 steps")
    [expected] = untouched([config])

    def die(job: RunningJob) -> None:
        if next(iter(job._held.values())).status.progress.step == 30:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "check", die)
        with pytest.raises(Stopped):
            run_here("train", [config])
    newest = max((study.path / "trunks").glob("*/trunk-*"))
    tensors, meta = newest / "tensors.safetensors", newest / "state.json"
    data = bytearray(tensors.read_bytes())
    match damage:
        case "truncated":
            tensors.write_bytes(data[: len(data) // 2])
        case "flipped":
            data[-5] ^= 1
            tensors.write_bytes(data)
        case "no meta":
            meta.unlink()
        case "torn meta":
            meta.write_text(meta.read_text()[:40])
    [folder] = run_here("train", [config])
    assert folder.record_data()["resumed_at"] == [29]
    assert_same(result(folder), expected)


@pytest.fixture
def two_states(tmp_path: Path) -> TrunkStates:
    """States at 5 and 10."""
    states = TrunkStates(tmp_path / "trunk")
    for step in (5, 10):
        states.save(TRUNK, a_state(step), step)
    return states


def a_state(step: int) -> TrainState:
    snapshot = Snapshot({"a": torch.randn(3)}, {0: {"exp_avg": torch.randn(2)}})
    return TrainState(step, snapshot, [], torch.randn(4), Seconds(1.5, 2.5))


@pytest.mark.parametrize("linked", [".", ".."])
def test_states_are_not_kept_behind_a_link(tmp_path: Path, linked: str) -> None:
    folder = tmp_path / "trunks" / "trunk"
    TrunkStates(folder).save(TRUNK, a_state(5), 5)
    link = folder if linked == "." else folder.parent
    link.rename(tmp_path / "far")
    link.symlink_to(tmp_path / "far")
    with pytest.raises(UserError, match=f"{link}=a link to {tmp_path / 'far'} is not valid"):
        TrunkStates(folder)


def test_a_trunk_behind_a_link_is_not_removed_to_time_it_anew(tmp_path: Path) -> None:
    (tmp_path / "far" / "trunk").mkdir(parents=True)
    (tmp_path / "trunks").symlink_to(tmp_path / "far")
    time = TrunkTime(tmp_path / "trunks" / "trunk", MagicMock())
    with pytest.raises(UserError, match=r"/trunks=a link to .*/far is not valid: must be a plain folder"):
        time.forget([], with_states=True)
    assert (tmp_path / "far" / "trunk").is_dir()


@pytest.mark.parametrize("damage", ["tensors.safetensors", "state.json"])
def test_a_damaged_state_makes_room_for_a_whole_one(two_states: TrunkStates, damage: str) -> None:
    (two_states.folder / "trunk-000000010" / damage).write_text("{")
    back = two_states.newest(TRUNK, at_most=10)
    assert back and back.step == 5
    two_states.save(TRUNK, a_state(10), 10)
    back = two_states.newest(TRUNK, at_most=10)
    assert back and back.step == 10


def test_what_cannot_be_read_now_or_by_this_version_stays(
    two_states: TrunkStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = two_states.folder / "trunk-000000010"

    def away(path: Path) -> str:
        if path.parent == newest:
            raise OSError(5, "Input/output error")
        return digest(path)

    digest = resume.file_digest
    with monkeypatch.context() as patched:
        patched.setattr(resume, "file_digest", away)
        back = two_states.newest(TRUNK, at_most=10)
        assert back and back.step == 5
    back = two_states.newest(TRUNK, at_most=10)
    assert back and back.step == 10
    meta = newest / "state.json"
    write_sealed(meta, {**read_sealed(meta), "format": 99})
    back = two_states.newest(TRUNK, at_most=10)
    assert back and back.step == 5 and meta.exists()


def test_what_a_killed_process_left_half_written_goes(two_states: TrunkStates) -> None:
    old, fresh = (two_states.folder / f".trunk-00000001{end}.tmp" for end in ("1.dead", "2.busy"))
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "tensors.safetensors").write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    two_states.save(TRUNK, a_state(15), 15)
    assert fresh.exists() and not old.exists(), "another job may be writing the fresh one"


def test_a_larger_budget_later_continues_the_trunk(tiny: Tiny, run_here: Run, untouched: Any) -> None:
    small, large = tiny(FP32, "budget=40 steps"), tiny(FP32, "budget=80 steps")
    [expected] = untouched([large])
    run_here("train", [small])
    [folder] = run_here("train", [large])
    assert folder.record_data()["resumed_at"] == [32], "where the smaller budget left the trunk"
    assert folder.record_data()["environment"]["before"] == [], "computed in the same way"
    assert folder.record_data()["model_seconds"] == 80 * folder.record_data()["step_seconds"]
    assert_same(result(folder), expected)


def stopped_after(steps: int, run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def die(job: RunningJob) -> None:
        if next(iter(job._held.values())).status.progress.step == steps:
            raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(RunningJob, "check", die)
        run()


def test_a_run_that_goes_on_in_another_way_says_so_and_its_seconds_are_no_result(
    tiny: Tiny, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = (FP32, "impl.save_seconds=0", "budget=120 steps", "schedule=matched")
    monkeypatch.setattr(StepTiming, "estimate", lambda timing: 1.0)
    monkeypatch.setattr(training_context, "settle", lambda *arguments, **options: 1.0)
    stopped_after(61, lambda: run_here("train", [tiny(*common, "impl.attention=eager")]), monkeypatch)
    monkeypatch.setattr(StepTiming, "estimate", lambda timing: 0.01)
    monkeypatch.setattr(training_context, "settle", lambda *arguments, **options: 0.01)
    [folder] = run_here("train", [tiny(*common, "impl.attention=sdpa")])
    environment, resumed = folder.record_data()["environment"], folder.record_data()["resumed_at"][-1]
    assert environment["attention"] == "sdpa" and [old["attention"] for old in environment["before"]] == ["eager"]
    seconds = {row["step"]: row["model_seconds"] for row in folder.metrics()}
    assert seconds == {step: pytest.approx(min(step, resumed) + max(step - resumed, 0) * 0.01) for step in seconds}
    assert list(seconds.values()) == sorted(seconds.values()) and max(seconds) == 120 > resumed > 50
    [other] = run_here("train", [tiny(*common, "seed=1")])
    cells = load_study(study).cells
    assert cells.set_index("cell")["mixed"].to_dict() == {folder.id: True, other.id: False}
    assert timed(cells)["cell"].tolist() == [other.id]


@pytest.mark.parametrize("is_known", [True, False])
def test_a_trunk_that_shared_its_device_is_not_taken_for_one_alone(
    tiny: Tiny, run_here: Run, study: Study, is_known: bool
) -> None:
    run_here("train", [tiny("budget=40 steps")], Resources(1, jobs_per_device=2))
    if not is_known:
        for path in study.path.glob("trunks/*/*/state.json"):
            state = json.loads(path.read_text())
            del state["pace"], state["seal"]
            path.write_text(json.dumps(state))
    [folder] = run_here("train", [tiny("budget=80 steps")])
    assert folder.record_data()["environment"]["per_device"] == 1
    before = [old["per_device"] for old in folder.record_data()["environment"]["before"]]
    assert before == ([2] if is_known else []), "a state of before this was kept says nothing"
    [last] = run_here("train", [tiny("budget=160 steps")])
    assert last.record_data()["environment"]["before"] == folder.record_data()["environment"]["before"]


def test_a_signal_saves_within_a_step_and_the_cell_is_preempted(
    tiny: Tiny, run_here: Run, untouched: Any, study: Study
) -> None:
    config = tiny(FP32, "budget=300 steps")
    [expected] = untouched([config])
    observed: list[int | None] = []

    def signal_at_40(job: RunningJob, cell_id: str, progress: CellProgress) -> None:
        observed.append(progress.step)
        if progress.step == 40:
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunningJob, "progress", signal_at_40)
        [folder] = run_here("train", [config])
    assert folder.status().state is State.PREEMPTED and "SIGUSR1" in (folder.status().error or "")
    assert observed[-1] == 40
    [folder] = run_here("train", [config])
    assert folder.record_data()["resumed_at"] == [40]
    assert_same(result(folder), expected)


def saved_states(study: Study) -> set[str]:
    return {path.name for path in (study.path / "trunks").glob("*/[!.]*")}


@pytest.mark.long
def test_a_killed_process_resumes_and_keeps_its_clocks(tiny: Tiny, run_here: Run, untouched: Any, study: Study) -> None:
    config = tiny(FP32, "impl.threads=1", "impl.save_seconds=0.02", "budget=800 steps")
    [expected] = untouched([config])
    plan = make_plan(study, "train", make_cells("train", [config]))
    [cell] = plan.cells
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["trainlarge.launch.worker", "trainlarge.training.trunk"])
    for _ in range(3):
        process = server.Process(
            target=run_job, args=(Assignment(study.path, "train", (cell.id,), Resources(cores=1)),)
        )
        before = saved_states(study)
        process.start()
        while process.is_alive() and saved_states(study) <= before:
            time.sleep(0.005)
        assert process.is_alive(), "it is killed while it trains"
        process.kill()
        process.join()
    [folder] = run_here("train", [config])
    assert_same(result(folder), expected)
    seconds = [row["train_seconds"] for row in folder.metrics()]
    assert seconds == sorted(seconds)


def test_a_full_disk_while_saving_does_not_stop_the_run(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrunkStates, "save", full)
    [folder] = run_here("train", [tiny("impl.save_seconds=0")])
    assert folder.is_done()


def test_a_state_of_before_keys_were_added_is_read(tmp_path: Path) -> None:
    states = TrunkStates(tmp_path / "trunk")
    states.save(TRUNK, a_state(5), 5)
    path = states.folder / "trunk-000000005" / "state.json"
    data = json.loads(path.read_text())
    del data["modifiers"], data["seal"]
    path.write_text(json.dumps(data | {"pace": {"environments": [{"device": "cpu"}], "model_seconds": 2.0}}))
    state = states.newest(TRUNK, at_most=9)
    assert state and state.timing and state.snapshot.modifiers == []
    later = RunTiming({"device": "cpu"}, 0.1).resumed(state.timing, state.step)
    assert (later.before, later.since, later.seconds_before) == ((), 5, 2.0)


def test_states_come_back_exactly_and_only_two_of_a_part_are_kept(tmp_path: Path) -> None:
    states = TrunkStates(tmp_path / "trunk")
    for step in (5, 10, 15):
        snapshot = Snapshot({"a": torch.randn(3)}, {0: {"step": torch.tensor(1.0), "exp_avg": torch.randn(2, 2)}})
        state = TrainState(step, snapshot, [{"step": step}], torch.randn(4), Seconds(1.5, 2.5))
        states.save(TRUNK, state, step)
    back = states.newest(TRUNK, at_most=99)
    assert back and (back.step, back.rows, back.clock) == (state.step, state.rows, state.clock)
    assert torch.equal(back.losses, state.losses) and torch.equal(back.snapshot.model["a"], snapshot.model["a"])
    assert torch.equal(back.snapshot.optimizer[0]["exp_avg"], snapshot.optimizer[0]["exp_avg"])
    assert sorted(path.name for path in states.folder.iterdir()) == ["trunk-000000010", "trunk-000000015"]
    below = states.newest(TRUNK, at_most=12)
    assert below and below.step == 10 and states.newest(TRUNK, at_most=9) is None
    assert json.loads((states.folder / "trunk-000000015" / "state.json").read_text())["format"] == 1
