from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainlarge.cli import main
from trainlarge.commands import step_times
from trainlarge.commands.estimate import Estimate, JobEstimate, estimate
from trainlarge.commands.recipe_costs import packed_bytes
from trainlarge.commands.step_times import StepTimes
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.machine.cores import cores_here
from trainlarge.machine.resources import Resources
from trainlarge.models.shape import shape_of
from trainlarge.sweep.plan import look_ahead, make_cells
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.step import step_of

Tiny = Callable[..., dict[str, Any]]
RunHere = Callable[..., list[CellFolder]]
StepsTake = Callable[[float], None]


@pytest.fixture
def tiny(tiny: Tiny) -> Tiny:
    """One thread is faster for so small a model, above all on a busy machine."""
    return lambda *overrides: tiny("impl.threads=1", *overrides)


def estimate_of(study: Study, stage: str, configs: list[StageConfig], redo: bool = False) -> Estimate:
    plan = look_ahead(study, stage, make_cells(stage, configs), redo)
    return estimate(study, plan, StepTimes(study, is_here=True, resources=Resources(cores_here())), at_once=1)


def test_jobs_of_one_size_are_in_order_of_their_seeds_whatever_their_ids(tiny: Tiny, study: Study) -> None:
    seeds = [10, 2, 0, 1]
    configs = [tiny(f"seed={seed}", f"arch.depth={depth}") for seed in seeds for depth in (1, 2)]
    words = [job.words[1:3] for job in estimate_of(study, "train", configs).jobs]
    assert words == [(shape, f"seed {seed}") for shape in ("16x2", "16x1") for seed in sorted(seeds)]


@pytest.mark.parametrize("schedule", ["cooldown", "matched"])
def test_numbers_are_those_of_the_records(
    tiny: Tiny, study: Study, run_here: RunHere, steps_take: StepsTake, schedule: str
) -> None:
    # The same all the time: a job that finds steps much faster than one before would correct the budget in seconds.
    steps_take(0.01)
    configs = [tiny(f"budget={budget}", f"schedule={schedule}") for budget in ("30 steps", "1e4 tokens", "0.5 s")]
    foreseen = estimate_of(study, "train", configs)
    records = {folder.id: folder.record_data() for folder in run_here("train", configs)}
    in_seconds = {cell for cell, record in records.items() if record["config"]["budget"].endswith(" s")}
    assert not estimate_of(study, "train", configs).jobs
    for job in foreseen.jobs:
        known = [(cell.steps, records[cell.cell]["step"]) for cell in job.cells if cell.cell not in in_seconds]
        assert all(steps == recorded for steps, recorded in known)
    again = estimate_of(study, "train", configs, redo=True)
    timed = StepTimes(study, is_here=True, resources=Resources(cores_here())).find(_resolved(configs[0]))
    for job in again.jobs:
        own = [records[cell.cell] for cell in job.cells]
        assert [(cell.steps, cell.tokens, cell.flops) for cell in job.cells] == [
            (record["step"], record["tokens"], record["flops"]) for record in own
        ]
        trunk = max(record["branch_step"] for record in own)
        steps = trunk + sum(record["step"] - record["branch_step"] for record in own)
        assert job.steps + job.spared_steps == steps and job.flops == job.steps * own[0]["flops"] // own[0]["step"]
        assert job.seconds == pytest.approx(job.steps * timed.seconds) and job.parameters == own[0]["parameters"]


def test_a_job_costs_its_trunk_once(tiny: Tiny, study: Study) -> None:
    configs = [tiny(f"budget={steps} steps") for steps in (100, 200, 400)]
    whole = estimate_of(study, "train", configs)
    [job] = whole.jobs
    assert job.steps == 320 + 20 + 40 + 80 and sum(cell.steps or 0 for cell in job.cells) == 700


def test_what_saved_states_spare_is_not_counted(tiny: Tiny, study: Study, run_here: RunHere) -> None:
    small, large = tiny("budget=100 steps"), tiny("budget=400 steps")
    run_here("train", [small])
    [job] = estimate_of(study, "train", [small, large]).jobs
    assert (job.steps, job.spared_steps) == (400 - 80, 80), "the trunk goes on from where the first branch left it"
    [record] = [folder.record_data() for folder in run_here("train", [large])]
    assert record["resumed_at"] == [80] and job.flops == 320 * record["flops"] // record["step"]
    [half] = estimate_of(study, "train", [tiny("budget=40 steps")]).jobs
    assert half.spared_steps == 0, "no state is early enough"
    state = next(study.path.glob("trunks/*/trunk-*"))
    shutil.copytree(state, state.with_name("branch400-000000390"))
    [torn] = estimate_of(study, "train", [large], redo=True).jobs
    assert (torn.steps, torn.spared_steps) == (10, 390)
    shutil.copytree(state, state.with_name("branch400-000000400"))
    [spared] = estimate_of(study, "train", [large], redo=True).jobs
    assert (spared.steps, spared.spared_steps, spared.seconds) == (0, 400, 0.0), "known to be nothing, not unknown"


@pytest.mark.parametrize("task", ["mlm", "classification"])
def test_epochs_are_steps_once_the_data_is_prepared(
    tiny: Tiny, study: Study, run_here: RunHere, tmp_path: Path, task: str
) -> None:
    table = tmp_path / "rows.csv"
    rows = (f"number {number} is {number % 7},{number % 2}\n" for number in range(800))
    table.write_text("text,label\n" + "".join(rows))
    files = [f"data.files=[{table}]"] if task == "classification" else []
    files += ["data.vocab_size=311", "data.fraction=0.5", "optim.batch=256", f"task={task}"]
    config = tiny("budget=1.5 epochs", *files)
    (before,) = estimate_of(study, "train", [config]).jobs
    assert before.seconds is None and (before.steps is None) == (task == "mlm"), "rows of a table are counted"
    record = run_here("train", [config])[0].record_data()
    (after,) = estimate_of(study, "train", [config], redo=True).jobs
    assert after.cells[0].steps == record["step"] > 10
    steps = tiny("budget=9 steps", *files)
    (both,) = estimate_of(study, "train", [steps, config], redo=True).jobs
    assert [cell.steps for cell in both.cells] == [9, record["step"]], "whichever budget comes first"
    assert before.cells[0].steps in (None, record["step"])
    one_step = record["data"]["epochs"] / record["step"]
    assert 1.5 - one_step < record["data"]["epochs"] <= 1.5 and record["config"]["budget"] == "1.5 epochs"


def test_seconds_of_budgets_in_seconds_are_known_before_a_step_is_timed(tiny: Tiny, study: Study) -> None:
    [job] = estimate_of(study, "train", [tiny(f"budget={seconds} s") for seconds in (10, 20, 40)]).jobs
    assert job.steps is job.flops is None and job.seconds == pytest.approx(32 + 2 + 4 + 8)
    [mixed] = estimate_of(study, "train", [tiny("budget=10 s"), tiny("budget=40 steps")]).jobs
    assert mixed.seconds is None and [cell.steps for cell in mixed.cells] == [None, 40]


def test_space_is_that_of_the_files(tiny: Tiny, compose: Any, study: Study, run_here: RunHere) -> None:
    config = tiny("arch.width=128", "budget=3 steps")
    [job] = estimate_of(study, "train", [config]).jobs
    [folder] = run_here("train", [config])
    files = sum((folder.checkpoint / name).stat().st_size for name in ("model.safetensors", "tokenizer.json"))
    assert job.disk_bytes == pytest.approx(files, rel=0.1)
    states = sum(path.stat().st_size for path in study.path.glob("trunks/*/*/tensors.safetensors"))
    assert 0 < states <= 1.05 * job.state_bytes
    recipes = [
        compose("compress", "study=tiny", f"checkpoint={folder.id}", f"prune.sparsity={share}", f"quantize.bits={bits}")
        for share, bits in ((0.0, 32), (0.5, 32), (0.0, 8), (0.6, 4))
    ]  # fmt: skip
    embeddings = ("quantize.embedding_bits=8", "quantize.embeddings=false", "prune.embeddings=false")
    recipes += [
        compose("compress", "study=tiny", f"checkpoint={folder.id}", "prune.sparsity=0.6", "quantize.bits=4", own)
        for own in embeddings
    ]
    before = estimate_of(study, "compress", recipes)
    assert before.total("steps") == 0, "nothing is trained"
    assert before.jobs[0].seconds and before.jobs[0].timed_on is None, "by the FLOPs of its evaluations"
    assert before.jobs[0].flops and len(before.jobs) == 1
    for cell in run_here("compress", recipes):
        size = packed_bytes(shape_of(folder.cell().as_train), cell.cell().as_compress.recipe)
        assert size == pytest.approx(cell.packed.stat().st_size, rel=0.05)
    after = estimate_of(study, "compress", recipes, redo=True)
    assert after.jobs[0].seconds and after.jobs[0].timed_on


def test_recovery_is_counted_once_for_the_recipes_that_share_it(
    tiny: Tiny, compose: Any, study: Study, run_here: RunHere
) -> None:
    [folder] = run_here("train", [tiny("budget=20 steps")])
    recipe = ("study=tiny", f"checkpoint={folder.id}", "tracking=none", "prune.sparsity=0.5")
    retrained = (*recipe, "recover=retrain", "recover.budget=0.5 parent")
    [without] = estimate_of(
        study, "compress", [compose("compress", *recipe, f"quantize.bits={b}") for b in (8, 4)]
    ).jobs
    configs = [compose("compress", *retrained, f"quantize.bits={bits}") for bits in (8, 4)]
    [job] = estimate_of(study, "compress", configs).jobs
    step = step_of(folder.cell().config)
    assert (job.flops or 0) - (without.flops or 0) == 10 * step.flops
    assert (job.tokens or 0) - (without.tokens or 0) == 10 * step.tokens
    run_here("compress", configs)
    states = sum(path.stat().st_size for path in study.path.glob("trunks/*/recover-*/tensors.safetensors"))
    assert 0 < states <= 1.05 * job.state_bytes and not without.state_bytes


def test_a_time_of_another_device_is_not_taken_here(tiny: Tiny, study: Study, run_here: RunHere) -> None:
    config = tiny("budget=3 steps", "impl.threads=0")
    run_here("train", [config])
    assert StepTimes(study, is_here=True, resources=Resources(cores_here())).find(_resolved(config))
    probe = time_steps(study, 0.1, device_name="Another CPU")
    assert StepTimes(study, is_here=True, resources=Resources(cores_here())).find(_resolved(config)) is None
    threads = probe["key"]["implementation"]["threads"]
    elsewhere = StepTimes(study, is_here=False, resources=Resources(threads)).find(_resolved(config))
    assert elsewhere and elsewhere.device_name == "Another CPU"
    assert StepTimes(study, is_here=False, resources=Resources(threads + 1)).find(_resolved(config)) is None


def test_a_time_in_other_micro_batches_or_by_another_torch_is_not_taken(
    tiny: Tiny, study: Study, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (tiny("budget=3 steps", "impl.threads=1", f"impl.micro_batch_rows={rows}") for rows in (0, 1))
    run_here("train", [parts])
    times = StepTimes(study, is_here=True, resources=Resources(1))
    assert times.find(_resolved(parts)) and times.find(_resolved(whole)) is None
    monkeypatch.setattr(torch, "__version__", "99.0")
    step_times._chosen_here.cache_clear()
    assert times.find(_resolved(parts)) is None
    assert StepTimes(study, is_here=False, resources=Resources(1)).find(_resolved(parts)), (
        "the newest that fits, as on a cluster"
    )
    step_times._chosen_here.cache_clear()


def test_a_time_next_to_other_jobs_is_found_for_jobs_that_share_a_device(
    tiny: Tiny, study: Study, run_here: RunHere
) -> None:
    config = tiny("budget=3 steps")
    run_here("train", [config])
    [path] = (study.path / "probes").glob("*.json")
    probe = json.loads(path.read_text())
    probe["key"]["per_device"] = 2
    del probe["seal"]
    path.write_text(json.dumps(probe))
    shared, whole = (
        StepTimes(study, is_here=True, resources=Resources(1, jobs_per_device=jobs)).find(_resolved(config))
        for jobs in (2, 1)
    )
    assert shared and whole is None


def time_steps(study: Study, seconds: float, **implementation: Any) -> dict[str, Any]:
    """Change the only time that the study has kept."""
    [path] = (study.path / "probes").glob("*.json")
    probe = json.loads(path.read_text())
    probe["key"]["implementation"] |= implementation
    probe["step_seconds"] = seconds
    del probe["seal"]
    path.write_text(json.dumps(probe))
    return dict(probe)


def _resolved(config: TrainConfig) -> TrainConfig:
    return make_cells("train", [config])[0].as_train


def test_jobs_of_one_shape_are_told_apart_by_what_differs(tiny: Tiny, study: Study) -> None:
    rates = [tiny(f"optim.lr={lr}", f"optim.batch={batch}") for lr in (0.001, 0.002) for batch in (64, 128)]
    words = {job.what for job in estimate_of(study, "train", [*rates, tiny("seed=7")]).jobs}
    same = "modern 16x1, seed 0, 40 steps"
    assert words == {
        *(f"{same}, optim.lr={lr}, optim.batch={batch}" for lr in (0.001, 0.002) for batch in (64, 128)),
        "modern 16x1, seed 7, 40 steps",
    }
    peaks = [job.what for job in estimate_of(study, "train", [tiny(f"optim.peak_lr={lr}") for lr in (1e-3, 2e-3)]).jobs]
    assert peaks == [f"{same}, optim.peak_lr={lr}" for lr in (0.001, 0.002)]
    both = [tiny("optim.lr=0.001", "optim.batch=64"), tiny("optim.lr=0.002", "optim.batch=128")]
    few = {job.what for job in estimate_of(study, "train", both).jobs}
    assert few == {f"{same}, optim.batch=64", f"{same}, optim.batch=128"}, "no more keys than it takes"


def job_of(seconds: float) -> JobEstimate:
    return JobEstimate(words=(), cells=(), parameters=1, tokens=1, flops=1, seconds=seconds, disk_bytes=1)


@pytest.mark.parametrize(("at_once", "elapsed"), [(1, 12.0), (2, 6.0), (3, 5.0), (None, 5.0)])
def test_jobs_at_once_shorten_the_whole(at_once: int | None, elapsed: float) -> None:
    jobs = tuple(job_of(seconds) for seconds in (5.0, 4.0, 2.0, 1.0))
    assert Estimate(jobs, at_once).elapsed_seconds == elapsed
    assert Estimate((), at_once).elapsed_seconds == 0.0


def test_each_calibration_adds_a_round_and_the_estimate_only_falls(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    found: list[tuple[float, int]] = []
    for _ in range(2):
        assert main(["plan", "train", *tiny_overrides, "budget=[10 steps,20 steps]", "--json", "--calibrate"]) == 0
        [probe] = (study.path / "probes").glob("*.json")
        seconds = json.loads(capfd.readouterr().out)["total"]["seconds"]
        found.append((seconds, len(json.loads(probe.read_text())["rounds"])))
        assert not (study.path / "train").exists(), "nothing is frozen"
    assert 0 < found[1][0] <= found[0][0] and found[1][1] > found[0][1] > 0
