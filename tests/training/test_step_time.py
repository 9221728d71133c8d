"""Seconds on a busy machine: what was measured beside other programs is corrected, or told and made good."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fake_clock import BUSY, QUIET, FakeClock, take_fake_clock
from trainlarge.commands.status import read_state
from trainlarge.config import typed_json
from trainlarge.launch.job import RunningJob
from trainlarge.machine import step_time
from trainlarge.machine.probe import WARM_UP_STEPS, StepTiming, settle
from trainlarge.machine.resources import Resources
from trainlarge.machine.step_time import Round, StepTimer, Window, estimated, is_settled
from trainlarge.results.comparable import timed
from trainlarge.results.frames import load_study
from trainlarge.results.report.findings import findings, summary
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.step_times import budgets_missed
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training import trunk_time
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext
from trainlarge.training.loop import Loop

Tiny = Callable[..., dict[str, Any]]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
MEASURED = {"train_seconds", "wall_seconds"}
FP32 = ("impl.precision=fp32", "impl.device=cpu")


class Stopped(Exception):
    """Stands for a process that dies at a certain step."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return take_fake_clock(monkeypatch)


def window(seconds: float, share: float = 1.0) -> Window:
    return Window(10, seconds, share * seconds, 2 * seconds)


def result(folder: CellFolder) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, torch.Tensor]]:
    record, kept = (
        folder.record_data(),
        ("loss", "accuracy", "step", "flops", "step_seconds", "model_seconds", "branch_step"),
    )
    rows = [{key: value for key, value in row.items() if key not in MEASURED} for row in folder.metrics()]
    return {key: record[key] for key in kept}, rows, load_file(folder.checkpoint / "model.safetensors")


def assert_same(one: CellFolder, expected: tuple[Any, Any, dict[str, torch.Tensor]]) -> None:
    record, rows, tensors = result(one)
    assert record == expected[0] and rows == expected[1]
    assert all(torch.equal(tensor, expected[2][name]) for name, tensor in tensors.items())


def test_windows_are_ten_steps_or_a_second(clock: FakeClock) -> None:
    timer = StepTimer()
    clock.training = lambda step: QUIET if step <= 21 else 0.6
    for _ in range(26):
        timer.step()
    windows = timer.take()
    assert [one.steps for one in windows] == [10, 10, 2, 2]
    assert [one.seconds for one in windows] == pytest.approx([QUIET, QUIET, 0.6, 0.6])
    assert windows[0].cpu_seconds == pytest.approx(2 * QUIET) and timer.windows == []


def test_a_pause_is_in_no_window(clock: FakeClock) -> None:
    timer = StepTimer()
    for step in range(22):
        if step == 15:
            timer.pause()
            clock.now += 100
        timer.step()
    assert [one.steps for one in timer.take()] == [10] and timer.take() == []


def test_the_estimate_is_the_second_lowest_window_and_only_falls() -> None:
    draw, rounds, before = random.Random(0), [Round.of("probe", [window(0.05), window(0.06)])], 1.0
    assert estimated(rounds) == 0.06
    for _ in range(50):
        rounds.append(Round.of("training", [window(draw.uniform(0.01, 0.2)) for _ in range(draw.randint(1, 5))]))
        assert estimated(rounds) <= before
        before = estimated(rounds)
    assert [typed_json.read(Round, json.loads(json.dumps(typed_json.plain(some)))) for some in rounds] == rounds


def busy_steps(seconds: float, quiet: float, draw: random.Random) -> list[float]:
    """Steps beside three programs that work and rest for 0.2 to 3 s: as slow as programs are at work, on two cores."""
    until, works = [draw.uniform(0, 3) for _ in range(3)], [draw.random() < 0.5 for _ in range(3)]
    now, steps = 0.0, []
    while now < seconds:
        for index in range(3):
            while until[index] <= now:
                until[index] += draw.uniform(0.2, 3)
                works[index] = not works[index]
        steps.append(quiet * (1.0, 1.9, 4.0, 7.0)[sum(works)] * draw.uniform(0.99, 1.03))
        now += steps[-1]
    return steps


@pytest.mark.parametrize("quiet", [0.002, 0.006, 0.03])
def test_in_a_simulation_the_estimate_finds_the_quiet_step_and_the_lower_quartile_does_not(quiet: float) -> None:
    ours, quartiles = [], []
    for seed in range(40):
        steps = busy_steps(24, quiet, random.Random(seed))
        means = [sum(steps[i : i + 10]) / 10 for i in range(0, len(steps) - 10, 10)]
        ours.append(estimated([Round.of("training", [window(mean) for mean in means])]) / quiet)
        quartiles.append(sorted(steps)[len(steps) // 4] / quiet)
    assert sum(ratio < 1.25 for ratio in ours) >= 38, sorted(ours)[-5:]
    assert sum(ratio < 1.25 for ratio in quartiles) < 30


def test_rounds_are_settled_when_undisturbed_ones_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    quiet, busy = Round.of("probe", [window(0.01)] * 2), Round.of("probe", [window(0.05, share=0.5)] * 2)
    assert not is_settled([quiet, quiet]) and is_settled([busy, quiet, quiet])
    assert not is_settled([busy] * 9), "equally slow beside a steady neighbour"
    assert not is_settled([busy, busy, quiet])
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    asleep = Round.of("probe", [window(0.01, share=0.6)] * 2)
    assert is_settled([asleep] * 8), "threads that sleep tell nothing; then many rounds must agree"
    assert not is_settled([asleep] * 7)


def test_settling_takes_rounds_until_they_agree_or_patience_ends(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    timing = StepTiming(study.path / "probes", {"a": 1})
    assert settle(timing, lambda steps: [window(0.05, share=0.5)] * 2, patience=0.0) == 0.05
    assert len(timing.rounds()) == 1
    assert settle(timing, lambda steps: [window(0.01)] * 2, patience=60.0) == 0.01
    assert len(timing.rounds()) == 3
    assert settle(timing, lambda steps: [window(0.02)] * 2, patience=60.0, least=1) == 0.01
    assert len(timing.rounds()) == 4, "measured again on purpose"


def test_a_time_that_was_kept_before_there_were_rounds_is_read(study: Study) -> None:
    timing = StepTiming(study.path / "probes", {"a": 1})
    timing.path.parent.mkdir(parents=True)
    timing.path.write_text(json.dumps({"key": {"a": 1}, "step_seconds": 0.2, "median_seconds": 0.3, "steps": 40}))
    assert timing.estimate() == 0.2
    timing.add(Round.of("training", [window(0.05)] * 3))
    assert timing.estimate() == 0.05 == json.loads(timing.path.read_text())["step_seconds"]


def test_a_disturbed_probe_is_corrected_by_the_steps_before_the_first_branch(
    tiny: Tiny, run_here: Run, study: Study, clock: FakeClock
) -> None:
    folders = run_here("train", [tiny(*FP32, f"budget={budget} s") for budget in (5, 8)])
    records = [folder.record_data() for folder in folders]
    assert [record["step"] for record in records] == [320, 512]
    assert [record["step_seconds"] for record in records] == pytest.approx([QUIET] * 2)
    assert [record["budget_missed"] for record in records] == pytest.approx([1.0] * 2)
    assert records[0]["cpu_seconds_per_step"] == pytest.approx(2 * QUIET)
    for folder in folders:
        rows = folder.metrics()
        assert [row["model_seconds"] for row in rows] == pytest.approx([row["step"] * QUIET for row in rows])
    assert budgets_missed(study) == {}


@pytest.mark.parametrize(
    "overrides",
    [[], ["schedule=matched"], ["schedule=fixed", "schedule.horizon=8 s"]],
    ids=["cooldown", "matched", "fixed"],
)
def test_a_missed_budget_is_told_left_out_of_seconds_and_made_good_by_the_same_command(
    tiny: Tiny, run_here: Run, study: Study, clock: FakeClock, overrides: list[str]
) -> None:
    # A job of its own for each budget would see in the second what disturbed the first.
    budgets = (5,) if "schedule=matched" in overrides else (5, 8)
    configs = [tiny(*FP32, *overrides, f"budget={budget} s") for budget in budgets]
    clock.probe = QUIET
    expected = [result(folder) for folder in run_here("train", configs)]
    shutil.rmtree(study.path)
    clock.probe, clock.trained = BUSY, 0
    busy = 20 if "schedule=matched" in overrides else 58
    clock.training = lambda step: BUSY if step <= busy else QUIET
    folders = run_here("train", configs)
    missed = budgets_missed(study)
    assert missed == {folder.id: pytest.approx(5) for folder in folders}
    assert [folder.record_data()["step"] for folder in folders] == [int(budget / BUSY) for budget in budgets] and all(
        one.is_done() for one in folders
    )
    assert folders[-1].record_data()["budget_missed"] == pytest.approx(5)
    frames = load_study(study)
    assert list(frames.cells["budget_missed"]) == pytest.approx([5] * len(budgets)) and timed(frames.cells).empty
    assert (
        summary(frames).startswith(f"{len(budgets)} of {len(budgets)} cells got too few steps")
        and not findings(frames)[0].is_result
    )
    state = read_state(study)
    assert state.missed == missed
    first = min(folders, key=lambda folder: folder.id)
    assert state.commands() == [first.redo_command], "no command is known that made them"
    clock.training = lambda step: QUIET
    again = run_here("train", configs)
    for folder, one in zip(again, expected, strict=True):
        assert_same(folder, one)
    assert budgets_missed(study) == {} and list(load_study(study).cells["budget_missed"]) == pytest.approx(
        [1] * len(budgets)
    )
    if not overrides:
        assert again[0].record_data()["resumed_at"] == [82], "the trunk goes on from where its last branch left"


def test_a_cell_is_told_of_what_another_job_of_its_shape_observes_later(
    tiny: Tiny, run_here: Run, study: Study, clock: FakeClock
) -> None:
    clock.training = lambda step: BUSY
    [first] = run_here("train", [tiny(*FP32, "budget=5 s")])
    [steps] = run_here("train", [tiny(*FP32, "budget=60 steps", "seed=2")])
    assert budgets_missed(study) == {} and first.record_data()["budget_missed"] == pytest.approx(1)
    clock.training = lambda step: QUIET
    run_here("train", [tiny(*FP32, "budget=5 s", "seed=1")])
    assert budgets_missed(study) == {first.id: pytest.approx(5)}
    plan = make_plan(study, "train", make_cells("train", [tiny(*FP32, "budget=5 s")]))
    assert [job.cell_ids for job in plan.jobs] == [(first.id,)] and not first.is_done()
    assert steps.is_done(), "a budget in steps cannot be missed"


def test_what_was_compressed_of_a_missed_budget_is_compressed_again(
    tiny: Tiny, compose: Callable[..., dict[str, Any]], run_here: Run, study: Study, clock: FakeClock
) -> None:
    clock.training = lambda step: BUSY if step <= 58 else QUIET
    config = tiny(*FP32, "budget=5 s")
    [folder] = run_here("train", [config])
    [packed] = run_here("compress", [compose("compress", "study=tiny", f"checkpoint={folder.id}", "quantize.bits=8")])
    StepTiming(study.path / "probes", json.loads(next((study.path / "probes").glob("*.json")).read_text())["key"]).add(
        Round.of("training", [window(QUIET)] * 3)
    )
    assert load_study(study).with_losses().compression.empty
    run_here("train", [config])
    assert folder.record_data()["step"] == 320 and not packed.is_done()


def test_a_resume_keeps_the_step_time_that_was_fixed(
    tiny: Tiny, run_here: Run, study: Study, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its branch, and gone on with when steps are a tenth faster, which contradicts nothing."""
    config = tiny(*FP32, "budget=5 s")
    [expected] = map(result, run_here("train", [config]))
    shutil.rmtree(study.path)
    check = RunningJob.check

    def die(job: RunningJob) -> None:
        if next(iter(job._held.values())).status.progress.step == 300:
            raise Stopped

    monkeypatch.setattr(RunningJob, "check", die)
    with pytest.raises(Stopped):
        run_here("train", [config])
    monkeypatch.setattr(RunningJob, "check", check)
    clock.training = lambda step: 0.9 * QUIET
    [folder] = run_here("train", [config])
    assert folder.record_data()["resumed_at"] == [256] and folder.record_data()["budget_missed"] == pytest.approx(
        1 / 0.9
    )
    assert_same(folder, expected)


def test_cells_of_before_are_neither_missed_nor_trained_again(
    tiny: Tiny, run_here: Run, study: Study, clock: FakeClock
) -> None:
    clock.training = lambda step: BUSY
    [folder] = run_here("train", [tiny(*FP32, "budget=5 s")])
    [path] = (study.path / "probes").glob("*.json")
    path.write_text(json.dumps({"key": json.loads(path.read_text())["key"], "step_seconds": BUSY, "steps": 40}))
    shutil.rmtree(study.path / "trunks")
    record = folder.record_data()
    del record["budget_missed"], record["cpu_seconds_per_step"]
    folder.write_record_data(record)
    clock.training = lambda step: QUIET
    run_here("train", [tiny(*FP32, "budget=5 s", "seed=1")])
    assert folder.is_done() and folder.record_data() == record and budgets_missed(study) == {}
    cells = load_study(study).cells.set_index("cell")
    assert cells.loc[folder.id, "budget_missed"] == 1.0


def test_a_step_time_that_was_never_measured_undisturbed_is_told(
    tiny: Tiny, run_here: Run, study: Study, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(step_time, "clocks", lambda: (clock.now, 0.5 * clock.now, clock.now))
    clock.probe = QUIET
    run_here("train", [tiny("budget=2 s")])
    told = "the step time was never measured undisturbed (the training thread had 50 % of a core)"
    assert any(told in str(finding) for finding in findings(load_study(study)))
    monkeypatch.setattr(step_time, "clocks", lambda: (clock.now, 0.99 * clock.now, clock.now))
    run_here("train", [tiny("budget=3 s")])
    assert "In 1 of 2 cells the step time was never" in " ".join(map(str, findings(load_study(study))))


def test_budgets_inside_the_warm_up_are_told(tiny: Tiny, run_here: Run, study: Study) -> None:
    run_here("train", [tiny("budget=20 steps", "schedule.warmup_steps=50"), tiny("budget=80 steps")])
    told = [str(finding) for finding in findings(load_study(study)) if "inside the warm-up" in str(finding)]
    assert len(told) == 1 and told[0].startswith("In 1 of 2 cells")


def test_shapes_of_budgets_in_seconds_are_timed_before_their_jobs(tiny: Tiny, study: Study) -> None:
    def prepared(*sweeps: tuple[str, ...]) -> int:
        return len(STAGE.to_prepare(make_cells("train", [tiny(*overrides) for overrides in sweeps])))

    wide = ("arch.width=32", "budget=1 s")
    assert prepared(("budget=1 s",), ("budget=2 s",)) == 0, "one shape, which its job times"
    assert prepared(("budget=1 s",), ("budget=2 s",), wide, ("seed=1", *wide)) == 2
    assert prepared(("budget=9 steps",), ("budget=9 steps", "arch.width=32")) == 0
    assert prepared(("budget=1 s", "clock=real"), ("clock=real", *wide)) == 0


def test_the_shapes_of_a_sweep_are_timed_in_turns(tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(trunk_time, "PATIENCE_SECONDS", 600.0)
    widths: list[int] = []

    def timed_steps(loop: Loop, steps: int) -> list[Window]:
        """All are undisturbed but the first two rounds of the second shape."""
        width = loop.module.model.config.hidden_size
        if steps != WARM_UP_STEPS:
            widths.append(width)
        return [window(QUIET, share=0.5 if width == 32 and widths.count(32) <= 2 else 1.0)] * 2

    monkeypatch.setattr(Loop, "timed", timed_steps)
    configs = [tiny(*FP32, "budget=600 s", f"arch.width={width}") for width in (16, 32)]
    STAGE.prepare(study, STAGE.to_prepare(make_cells("train", configs)), Resources.whole_machine())
    assert widths == [16, 32, 16, 32, 16, 32, 32], "in turns, until each is settled"


def test_a_process_and_a_job_time_the_same_shape(tiny: Tiny, study: Study) -> None:
    first, second = (TrainContext(study, STAGE.resolve(tiny(f"seed={seed}"))).timing for seed in range(2))
    assert first.path == second.path and len(second.rounds()) == 1
