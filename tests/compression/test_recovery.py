"""Training inside a recipe: zeros stay, a stopped run goes on to the same bits, and shared steps are trained once."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainlarge.compression import load_packed_weights
from trainlarge.compression.recovery import StudyTrainer
from trainlarge.config.method import Method
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.launch.worker import Assignment, run_job
from trainlarge.machine.resources import Resources
from trainlarge.results.frames import load_study
from trainlarge.sweep.cell_results import METRICS
from trainlarge.sweep.plan import make_cells, make_plan
from trainlarge.sweep.proof import DamagedFileError
from trainlarge.sweep.records import RecoveryRow
from trainlarge.sweep.status import CellProgress, State
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.loop import Loop

Run = Callable[..., list[CellFolder]]
Compose = Callable[..., dict[str, Any]]
EXACT = ("impl.threads=1", "impl.precision=fp32")
PRUNED = (*EXACT, "prune.sparsity=0.6")
RETRAIN = (*EXACT, "recover=retrain", "recover.budget=30 steps", "recover.lr=0.003")
RETRAINED = (*RETRAIN, "prune.sparsity=0.6")
FOUR_BITS = ("quantize.bits=4",)


class Stopped(Exception):
    """Stands for a process that dies."""


@pytest.fixture
def parent(tiny: Callable[..., dict[str, Any]], run_here: Run) -> CellFolder:
    [folder] = run_here("train", [tiny("impl.precision=fp32", "budget=100 steps")])
    return folder


@pytest.fixture
def config(compose: Compose, parent: CellFolder) -> Compose:
    """Composes a compress configuration of a trained checkpoint, with more overrides."""
    return lambda *overrides: compose(
        "compress", "study=tiny", f"checkpoint={parent.id}", "tracking=none", "impl.device=cpu", *overrides
    )


def packed(folder: CellFolder) -> bytes:
    return folder.packed.read_bytes()


def without_clock(folder: CellFolder) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "train_seconds"} for row in folder.metrics()]


def forgotten(folder: CellFolder, study: Study) -> None:
    """As if the recipe had never been carried out."""
    shutil.rmtree(folder.path)
    shutil.rmtree(study.path / "trunks", ignore_errors=True)


def test_training_recovers_loss_and_pruned_weights_stay_zero(config: Compose, run_here: Run, study: Study) -> None:
    pruned, retrained = run_here("compress", [config(*PRUNED), config(*RETRAINED)])
    before, after = pruned.record_data(), retrained.record_data()
    assert after["loss"] < before["loss"] - 0.05
    assert after["nonzero_parameters"] <= before["nonzero_parameters"]
    weights, zeros = load_packed_weights(retrained.packed), load_packed_weights(pruned.packed)
    for name, tensor in zeros.items():
        if tensor.ndim > 1:
            assert not weights[name][tensor == 0].any(), name
    assert any(not torch.equal(weights[name], tensor) for name, tensor in zeros.items() if tensor.ndim == 1)


def test_the_record_tells_what_recovery_took(config: Compose, run_here: Run, parent: CellFolder, study: Study) -> None:
    run_here("compress", [config(*PRUNED), config(*RETRAINED), config(*PRUNED, "recover=retrain", "seed=1")])
    frame = load_study(study).compression.set_index("recipe")
    flops = parent.record_data()["flops"] / parent.record_data()["step"]
    given = frame.loc["prune 60 % global, retrain 30 steps"]
    assert (given["recover"], given["recover_steps"], given["recover_flops"]) == ("retrain", 30, 30 * flops)
    assert given["recover_seconds"] > 0
    before = parent.record_data()
    assert given["total_flops"] == before["flops"] + 30 * flops
    assert given["total_seconds"] == before["train_seconds"] + given["recover_seconds"]
    share = frame.loc["prune 60 % global, retrain 0.1 parent"]
    assert share["recover_steps"] == 10, "a tenth of 100"
    none = frame.loc["prune 60 % global"]
    assert (none["total_flops"], none["total_seconds"]) == (before["flops"], before["train_seconds"])
    assert (none["recover"], none["recover_steps"], none["recover_flops"], none["recover_seconds"]) == ("none", 0, 0, 0)


def test_the_curve_of_recovery_is_kept_and_proven(config: Compose, run_here: Run, parent: CellFolder) -> None:
    pruned, first, second = run_here("compress", [config(*PRUNED), config(*RETRAINED), config(*RETRAINED, *FOUR_BITS)])
    rows = [RecoveryRow.from_json(row) for row in first.metrics()]
    assert [row.step for row in rows] == list(range(1, 31))
    assert [row.lr for row in rows] == pytest.approx([0.003 * (1 - step / 30) for step in range(30)])
    assert all(row.train_loss is not None and 0 < row.train_loss < 20 for row in rows)
    record = first.record_data()
    assert rows[-1].flops == record["recover_flops"]
    assert rows[-1].train_seconds == pytest.approx(record["recover_seconds"], abs=0.05)
    assert second.metrics() == first.metrics(), "recipes that share the training have the same curve"
    assert pruned.metrics() == [] and not (pruned.path / METRICS).exists()
    content = (first.path / METRICS).read_bytes()
    assert record["files"][METRICS] == hashlib.sha256(content).hexdigest()
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(content[:-9] + content[-8:])):
        damage(first.path / METRICS)
        assert first.damaged_result() is not None
        with pytest.raises(DamagedFileError, match=f"redo {first.id}"):
            first.metrics()
        [again] = run_here("compress", [config(*RETRAINED)])
        assert again.damaged_result() is None and again.metrics() == second.metrics(), "it is made again"


def test_a_long_recovery_has_a_short_curve(config: Compose, run_here: Run, parent: CellFolder) -> None:
    budget = ("recover=retrain", "recover.budget=230 steps")
    [folder] = run_here("compress", [config(*PRUNED, *budget)])
    steps = [row["step"] for row in folder.metrics()]
    assert steps == [*range(3, 230, 3), 230]


def test_recovery_continues_the_data_of_its_parent_from_its_peak_rate_to_0(
    config: Compose, run_here: Run, parent: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, rates = [], []
    run = Loop.run

    def noted(loop: Loop, start: int, stop: int, rate: Callable[[int], float], observer: Any) -> None:
        steps.append((start, stop))
        rates.extend(loop.module.optim.peak_lr * rate(step) for step in range(start, stop))
        run(loop, start, stop, rate, observer)

    monkeypatch.setattr(Loop, "run", noted)
    run_here("compress", [config(*PRUNED, "recover=retrain", "recover.budget=20 steps")])
    peak = parent.cell().config.optim.peak_lr
    assert steps == [(100, 120)]
    assert rates == pytest.approx([peak * (1 - step / 20) for step in range(20)])


AWARE = (
    *(*EXACT, "prune.sparsity=0.3", "recover=retrain", "recover.budget=12 steps", "recover.quantize_aware=0.5"),
    *("quantize.bits=3", "quantize.range=learned", "activations=dynamic"),
)


@pytest.mark.parametrize(
    ("recipe", "step"), [((*RETRAINED, *FOUR_BITS), 3), ((*RETRAINED, *FOUR_BITS), 30), (AWARE, 4), (AWARE, 9)]
)
def test_a_stopped_recovery_goes_on_to_the_same_bits(
    config: Compose, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch, recipe: tuple[str, ...], step: int
) -> None:
    configs = [config(*recipe, "impl.save_seconds=0")]
    [folder] = run_here("compress", configs)
    expected, seconds = packed(folder), folder.record_data()["recover_seconds"]
    curve = without_clock(folder)
    forgotten(folder, study)
    check, checked = RunningJob.check, []

    def die(job: RunningJob) -> None:
        check(job)
        checked.append(1)
        if len(checked) == step:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "check", die)
        with pytest.raises(Stopped):
            run_here("compress", configs)
    assert [path.name for path in sorted((study.path / "trunks").glob("*/recover-*"))][-1] == f"recover-{step:09d}"
    [folder] = run_here("compress", configs)
    assert packed(folder) == expected and without_clock(folder) == curve
    assert 0 < folder.record_data()["recover_seconds"] < 100 * seconds


def test_a_job_that_is_asked_to_stop_saves_within_a_step(
    config: Compose, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_at_7(job: RunningJob, cell_id: str, progress: CellProgress) -> None:
        if progress.step == 7:
            job.request_stop("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(RunningJob, "progress", stop_at_7)
        [folder] = run_here("compress", [config(*RETRAINED)])
    assert folder.status().state is State.PREEMPTED
    assert [path.name for path in (study.path / "trunks").glob("*/recover-*")] == ["recover-000000007"]


@pytest.mark.long
def test_a_killed_process_goes_on_to_the_same_bits(config: Compose, run_here: Run, study: Study) -> None:
    configs = [config(*PRUNED, "recover=retrain", "recover.budget=1500 steps", "impl.save_seconds=0.02")]
    [folder] = run_here("compress", configs)
    expected = packed(folder)
    forgotten(folder, study)
    [cell] = make_plan(study, "compress", make_cells("compress", configs)).cells
    server = multiprocessing.get_context("forkserver")

    def saved() -> set[str]:
        return {path.name for path in (study.path / "trunks").glob("*/[!.]*")}

    for _ in range(2):
        assignment, before = Assignment(study.path, "compress", (cell.id,), Resources(cores=1)), saved()
        process = server.Process(target=run_job, args=(assignment,))
        process.start()
        while process.is_alive() and saved() <= before:
            time.sleep(0.005)
        assert process.is_alive(), "it is killed while it trains"
        process.kill()
        process.join()
    [folder] = run_here("compress", configs)
    assert packed(folder) == expected


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Method, ...]]:
    """The first steps of recipes after which something was trained."""
    found: list[tuple[Method, ...]] = []
    train = StudyTrainer.train

    def noted(trainer: StudyTrainer, plan: Any, done: tuple[Method, ...], *others: Any) -> Any:
        found.append(done)
        return train(trainer, plan, done, *others)

    monkeypatch.setattr(StudyTrainer, "train", noted)
    return found


RECIPES = [
    [*RETRAINED],
    [*RETRAINED, "quantize.bits=4"],
    [*RETRAINED, "quantize=gptq", "quantize.bits=3"],
    [*RETRAIN, "prune.sparsity=0.3"],
    [*RETRAINED, "structure=heads", "structure.keep=0.5"],
    [*RETRAIN, "prune=none", "vocabulary=frequent", "vocabulary.size=200"],
    [*RETRAIN, "prune=none", "factorize=svd", "quantize.bits=8", "activations=dynamic"],
    [*PRUNED, "quantize.bits=4"],
]


def test_recipes_that_agree_up_to_recovery_train_once_and_each_as_if_alone(
    config: Compose, run_here: Run, study: Study, trained: list[tuple[Method, ...]]
) -> None:
    configs = [config(*recipe) for recipe in RECIPES]
    together = [(packed(folder), folder.record_data()["loss"]) for folder in run_here("compress", configs)]
    assert len(trained) == 5, "the first three share one training"
    for one, expected in zip(configs, together, strict=True):
        shutil.rmtree(study.path / "compress")
        shutil.rmtree(study.path / "trunks")
        [alone] = run_here("compress", [one])
        assert (packed(alone), alone.record_data()["loss"]) == expected


def test_recipes_share_a_training_only_where_it_is_aware_of_the_same_quantization(
    config: Compose, run_here: Run, study: Study, trained: list[tuple[Method, ...]]
) -> None:
    aware = (*EXACT, "recover=retrain", "recover.budget=4 steps", "recover.quantize_aware=true")
    recipes = [
        (*aware, "quantize.bits=4"),
        (*aware, "quantize.bits=3"),
        (*aware, "quantize.bits=4", "activations=dynamic"),
        (*aware[:-1], "quantize.bits=4"),
        (*aware[:-1], "quantize.bits=3"),
    ]
    configs = [config(*recipe) for recipe in recipes]
    together = [(packed(folder), folder.record_data()["loss"]) for folder in run_here("compress", configs)]
    assert len(trained) == 4, "only those that are aware of nothing share one"
    assert len(list((study.path / "trunks").glob("*/recover-*"))) == 4
    shutil.rmtree(study.path / "compress")
    shutil.rmtree(study.path / "trunks")
    [alone] = run_here("compress", [configs[2]])
    assert (packed(alone), alone.record_data()["loss"]) == together[2]


def test_a_later_job_takes_the_recovery_of_an_earlier_one(
    config: Compose, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = run_here("compress", [config(*RETRAINED)])
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(Loop, "run", lambda loop, start, stop, *rest: steps.append((start, stop)))
    [second] = run_here("compress", [config(*RETRAINED, "quantize.bits=4")])
    assert not steps, "nothing is left to train"
    costs = [folder.record_data() for folder in (first, second)]
    assert costs[0]["recover_seconds"] == costs[1]["recover_seconds"] and costs[1]["recover_steps"] == 30


def test_norms_and_biases_train_alone_and_recover_less_than_all_weights(config: Compose, run_here: Run) -> None:
    recipes = [PRUNED, (*RETRAINED, "recover.trains=norms_and_biases"), RETRAINED]
    pruned, vectors, everything = run_here("compress", [config(*recipe) for recipe in recipes])
    before, after = (load_packed_weights(folder.packed) for folder in (pruned, vectors))
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor) is (tensor.ndim > 1), name
    losses = [folder.record_data()["loss"] for folder in (everything, vectors, pruned)]
    assert losses == sorted(losses) and losses[1] < losses[2]


@pytest.mark.parametrize("quantize", ["quantize=uniform quantize.bits=2", "quantize=ternary"])
def test_training_that_is_aware_of_quantization_loses_less_than_the_same_training_without(
    config: Compose, run_here: Run, quantize: str
) -> None:
    recipes = [RETRAIN, (*RETRAIN, *quantize.split()), (*RETRAIN, *quantize.split(), "recover.quantize_aware=true")]
    floats, after, aware = run_here("compress", [config(*recipe) for recipe in recipes])
    dense, lost, less = (folder.record_data()["loss"] for folder in (floats, after, aware))
    assert less - dense < 0.8 * (lost - dense), "of what rounding after the same training loses, at equal bytes"
    assert aware.record_data()["recover_flops"] == floats.record_data()["recover_flops"]
    assert abs(aware.packed.stat().st_size - after.packed.stat().st_size) < 0.02 * after.packed.stat().st_size


def test_a_recovery_that_diverges_fails_alone(config: Compose, run_here: Run) -> None:
    pruned, diverged = run_here("compress", [config(*PRUNED), config(*RETRAINED, "recover.lr=1e30")])
    assert pruned.is_done() and diverged.status().state is State.FAILED
    assert "recover.lr=1e+30" in (diverged.status().error or "")


def test_a_diverged_parent_is_refused(compose: Compose, tiny: Callable[..., dict[str, Any]], run_here: Run) -> None:
    [folder] = run_here("train", [tiny("optim.clip=0", "impl.precision=fp32", "optim.peak_lr=1e30")])
    overrides = ["study=tiny", f"checkpoint={folder.id}", "tracking=none", "recover=retrain"]
    with pytest.raises(UserError, match=f"^recover=retrain.*{folder.id} diverged"):
        make_cells("compress", [compose("compress", *overrides)])


def test_a_folder_is_refused(compose: Compose, parent: CellFolder) -> None:
    overrides = ["study=tiny", f"checkpoint={parent.checkpoint}", "tracking=none", "recover=retrain"]
    with pytest.raises(UserError, match=r"^recover=retrain.*only a train cell has data to train on"):
        make_cells("compress", [compose("compress", *overrides)])
