"""The train stage on tiny models: what a cell gives must depend on its configuration alone."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel

from trainlarge.config.data import DataConfig
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.prepare import prepare
from trainlarge.launch.job import LostLeaseError
from trainlarge.machine.implementation import Implementation
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS, Forward, library_logits, library_loss
from trainlarge.models.shape import shape_of
from trainlarge.results.frames import load_study
from trainlarge.sweep.records import CurveRow
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, perplexity
from trainlarge.tasks.masked_lm import MaskedLM
from trainlarge.tasks.step import step_of
from trainlarge.tasks.task import make_task
from trainlarge.training import context as training_context
from trainlarge.training import micro_batch, trunk
from trainlarge.training.cells import STAGE
from trainlarge.training.clocks import Clock
from trainlarge.training.curve import Curve
from trainlarge.training.module import Objective, TaskModule, make_optimizer
from trainlarge.training.run_timing import RunTiming
from trainlarge.training.schedule import Cooldown, make_schedule

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
StepsTake = Callable[[float], None]
CLOCKS = {"train_seconds", "model_seconds", "wall_seconds", "step_seconds", "cpu_seconds_per_step"}


def weights(folder: CellFolder) -> dict[str, Tensor]:
    return load_file(folder.checkpoint / "model.safetensors")


def result(folder: CellFolder) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Tensor]]:
    """Record and curve without what was measured of time and machine, and the weights."""
    record, measured = folder.record_data(), CLOCKS | {"provenance", "environment", "files"}
    return {key: record[key] for key in record.keys() - measured}, curve(folder), weights(folder)


def curve(folder: CellFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in folder.metrics()]


@pytest.mark.parametrize(
    "overrides",
    [
        ["impl.precision=fp32"],
        ["impl.precision=bf16"],
        ["impl.precision=fp32", "arch=roberta", "arch.dropout=0.1", "arch.positions=18"],
        ["impl.precision=fp32", "schedule=fixed", "schedule.horizon=100 steps"],
    ],
    ids=["fp32", "bf16", "dropout", "fixed"],
)
def test_a_result_does_not_depend_on_the_cells_it_shared_a_job_with(
    tiny: Tiny, run_here: Run, study: Study, overrides: list[str]
) -> None:
    config = tiny(*overrides)
    together = run_here("train", [replace(config, budget=f"{steps} steps") for steps in (30, 60)])
    shared = [(weights(folder), curve(folder)) for folder in together]
    for folder, steps, (tensors, rows) in zip(together, (30, 60), shared, strict=True):
        folder.clear_result()
        shutil.rmtree(study.path / "trunks")
        [alone] = run_here("train", [replace(config, budget=f"{steps} steps")])
        assert alone == folder and curve(alone) == rows
        assert all(torch.equal(tensors[name], tensor) for name, tensor in weights(alone).items())


def test_the_lightning_loop_equals_a_loop_written_by_hand(tiny: Tiny, run_here: Run, study: Study) -> None:
    config = STAGE.resolve(tiny("impl=plain", "budget=20 steps", "schedule.decay_share=0.3"))
    prepared, step = prepare(config.data, study.data_root), step_of(config)
    model = build_model(shape_of(config), init_std=config.arch.init_std, seed=0, attention="eager")
    optimizer, schedule = make_optimizer(model, config.optim), make_schedule(config.schedule, None)
    task = make_task(config.task, config.data, FORWARDS["library"])
    for number in range(20):
        rate = schedule.trunk(number) if number < 14 else schedule.branch(number, 20)
        for group in optimizer.param_groups:
            group["lr"] = config.optim.peak_lr * rate
        inputs, positions, labels = task.batch(prepared, 0, number, step.rows).values()
        optimizer.zero_grad()
        cross_entropy(library_logits(model, inputs, positions), labels.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    [folder] = run_here("train", [config])
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in weights(folder).items())


def test_the_fast_path_follows_the_plain_reference(tiny: Tiny, run_here: Run) -> None:
    [fast] = run_here("train", [tiny()])
    fast_loss = fast.record_data()["loss"]
    fast.clear_result()
    [plain] = run_here("train", [tiny("impl=plain")])
    assert fast_loss == pytest.approx(plain.record_data()["loss"], abs=0.02)


def test_training_learns_and_the_record_says_what_happened(tiny: Tiny, run_here: Run) -> None:
    [folder] = run_here("train", [tiny("budget=120 steps")])
    record, rows, step = folder.record_data(), folder.metrics(), step_of(folder.cell().config)
    assert record["loss"] < rows[0]["loss"] - 0.1
    assert record["loss"] < 3.5, "far better than guessing among 300 entries, which is 5.7 nats"
    assert [row["step"] for row in rows] == [25, 50, 100, 120] and rows[-1]["part"] == "branch"
    assert record["tokens"] == 120 * 256 and record["flops"] == 120 * step.flops and record["branch_step"] == 96
    assert record["executed_flops"] == 120 * step.executed_flops < record["flops"]
    assert [row["executed_flops"] for row in rows] == [row["step"] * step.executed_flops for row in rows]
    assert record["model_seconds"] == pytest.approx(120 * record["step_seconds"])
    assert record["config"] == to_plain(folder.cell().config) and record["cell"] == folder.id
    assert record["environment"]["software"]["torch"] == version("torch"), "torch itself may add +cu130"
    assert all(after["train_seconds"] > before["train_seconds"] for before, after in pairwise(rows))


def test_losses_per_document_and_the_loss_of_token_frequencies_are_kept(
    tiny: Tiny, run_here: Run, study: Study
) -> None:
    (folder,) = run_here("train", [tiny()])
    record, kept = folder.record_data(), json.loads(folder.document_losses.read_text())
    predictions = sum(kept["predictions"])
    assert predictions == _evaluation_set(folder, study).labels.numel()
    assert sum(kept["loss"]) / predictions == pytest.approx(record["loss"], abs=1e-4)
    facts = record["data"]
    assert len(kept["documents"]) == facts["evaluation_documents"] >= facts["effective_documents"] > 1
    assert record["document_standard_error"] > 0
    assert 0.5 * math.log(folder.cell().config.data.vocab_size) < facts["token_frequency_loss"]
    assert facts["token_frequency_loss"] < math.log(folder.cell().config.data.vocab_size)
    cells = load_study(study).cells
    assert cells["frequency_loss"].tolist() == [facts["token_frequency_loss"]]


def test_how_much_of_the_validation_text_was_seen_in_training_is_kept(
    tiny: Tiny, run_here: Run, study: Study, tiny_text: Path, tmp_path: Path
) -> None:
    paragraphs, files = tiny_text.read_text().split("\n\n"), {}
    for split, kept in {"files": paragraphs[:500], "validation_files": paragraphs[490:520]}.items():
        files[split] = tmp_path / f"{split}.jsonl"
        files[split].write_text("".join(json.dumps({"text": text}) + "\n" for text in kept))
    (folder,) = run_here("train", [tiny(*(f"data.{split}=[{path}]" for split, path in files.items()))])
    facts = folder.record_data()["data"]
    assert facts["overlap_documents"] == pytest.approx(1 / 3)
    assert facts["overlap_passages"] == pytest.approx(1 / 3, abs=0.1)
    columns = ["overlap_documents", "overlap_passages"]
    assert load_study(study).cells[columns].to_dict("records") == [{name: facts[name] for name in columns}]


def _evaluation_set(folder: CellFolder, study: Study) -> EvaluationSet:
    config = folder.cell().config
    return make_task(config.task, config.data, FORWARDS["fast"]).evaluation_set(prepare(config.data, study.data_root))


def test_executed_flops_follow_the_forward_pass_and_old_rows_do_not_know_them(tiny: Tiny) -> None:
    fast, library = step_of(STAGE.resolve(tiny())), step_of(STAGE.resolve(tiny("impl.forward=library")))
    assert library.executed_flops == library.flops == fast.flops > fast.executed_flops
    timing, evaluation = RunTiming({}, 0.1), Evaluation({"loss": 1.0, "accuracy": 0.5}, torch.ones(2, 1))
    first = CurveRow(
        step=25, tokens=10, flops=200, executed_flops=100, train_seconds=1.0, model_seconds=1.0, wall_seconds=2.0,
        train_loss=1.0, scores={}, lr=0.1, part="trunk",
    )  # fmt: skip
    curve = Curve(fast, timing, [first])
    curve.add(30, 0.1, "trunk", evaluation, Clock())
    assert curve.rows[-1].executed_flops == 100 + 5 * fast.executed_flops
    old = Curve(fast, timing, [replace(first, executed_flops=None)])
    old.add(30, 0.1, "trunk", evaluation, Clock())
    old.add(50, 0.1, "trunk", evaluation, Clock())
    assert [row.executed_flops for row in old.rows] == [None, None, None]


def test_a_checkpoint_is_a_plain_hugging_face_folder(tiny: Tiny, run_here: Run, study: Study) -> None:
    [folder] = run_here("train", [tiny()])
    model = AutoModelForMaskedLM.from_pretrained(folder.checkpoint).eval()
    record, config = folder.record_data(), folder.cell().config
    assert sum(parameter.numel() for parameter in model.parameters()) == record["parameters"]
    tokenizer = AutoTokenizer.from_pretrained(folder.checkpoint)
    assert tokenizer.decode(tokenizer("the large model")["input_ids"], skip_special_tokens=True) == "the large model"
    data = _evaluation_set(folder, study)
    with torch.no_grad():
        logits = model(input_ids=data.batch["input_ids"]).logits
    logits = logits.gather(1, data.batch["predicted"][..., None].expand(-1, -1, 300))
    by_library = cross_entropy(logits.flatten(0, 1), data.labels.flatten()).item()
    by_task = make_task(config.task, config.data, FORWARDS["fast"]).evaluate(model, data).loss
    assert by_library == pytest.approx(record["loss"], abs=1e-5) == by_task


def test_the_points_of_a_curve_are_evaluated_in_fp32_like_its_end(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[PreTrainedModel, EvaluationSet]] = []

    def noted(task: MaskedLM, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        seen.append((copy.deepcopy(model), data))
        return evaluate(task, model, data)

    evaluate = MaskedLM.evaluate
    monkeypatch.setattr(MaskedLM, "evaluate", noted)
    for forward in ("fast", "library"):
        [folder] = run_here("train", [tiny("impl.precision=bf16", f"impl.forward={forward}", "budget=60 steps")])
        task = MaskedLM(MaskedLMConfig(), DataConfig(), FORWARDS[forward])
        losses = [evaluate(task, model, data).loss for model, data in seen]
        assert [row["loss"] for row in folder.metrics()] == losses[:-1], "the last one is that of the training data"
        folder.clear_result()
        shutil.rmtree(folder.path.parents[1] / "trunks")
        seen.clear()


def test_evaluation_is_not_training_time(tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)
        return evaluate(*arguments)

    evaluate = MaskedLM.evaluate
    monkeypatch.setattr(MaskedLM, "evaluate", slow)
    [folder] = run_here("train", [tiny("budget=50 steps")])
    rows = folder.metrics()
    assert rows[-1]["wall_seconds"] - rows[-1]["train_seconds"] >= 0.3 * len(rows)


def test_the_training_clock_stops_when_the_device_has_done_what_it_was_asked_for(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a point of the curve, a saved state, and the end of a segment: a GPU works behind the clock."""
    events: list[str] = []
    stop = Clock.stop

    def noted(clock: Clock) -> None:
        if clock.is_running:
            events.append("stop")
        stop(clock)

    monkeypatch.setattr(Clock, "stop", noted)
    monkeypatch.setattr(Implementation, "synchronize", lambda implementation: events.append("wait"))
    run_here("train", [tiny("budget=30 steps", "impl.save_seconds=0")])
    stops = [index for index, event in enumerate(events) if event == "stop"]
    assert len(stops) == 30 + 1 + 2, "after each step, at the point of the curve, at the ends of trunk and branch"
    assert all(events[index - 1] == "wait" for index in stops)


def test_a_device_behind_the_clock_is_waited_for_at_the_ends_of_windows_only(
    tiny: Tiny, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = training_context.TrainContext(study, STAGE.resolve(tiny())).loop
    waits: list[Implementation] = []
    monkeypatch.setattr(Implementation, "synchronize", lambda implementation: waits.append(implementation))
    windows = loop.timed(25)
    assert [window.steps for window in windows] == [10, 10] and len(waits) == 3, "after steps 1, 11 and 21"
    assert all(0 < window.thread_seconds <= window.seconds * 1.01 for window in windows)
    [window] = loop.timed(3)
    assert window.steps == 3, "where there is no whole window"


def test_seeds_differ_and_the_same_seed_repeats(tiny: Tiny, run_here: Run) -> None:
    first, second = run_here("train", [tiny("impl.precision=fp32", f"seed={seed}") for seed in (0, 1)])
    assert first.record_data()["loss"] != second.record_data()["loss"]
    before = weights(first)
    first.clear_result()
    run_here("train", [tiny("impl.precision=fp32", "seed=0")])
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(first).items())


def test_budgets_in_seconds_keep_the_step_time_that_was_fixed(tiny: Tiny, run_here: Run, steps_take: StepsTake) -> None:
    config = tiny("budget=0.5 s")
    steps_take(0.011)
    [folder] = run_here("train", [config])
    record = folder.train_record()
    assert record.step == 45 and record.step_seconds == pytest.approx(0.011)
    assert record.model_seconds == pytest.approx(45 * 0.011)
    folder.clear_result()
    steps_take(0.01)
    run_here("train", [config])
    assert (folder.train_record().step, folder.train_record().step_seconds) == (45, record.step_seconds)


def test_a_step_is_timed_anew_in_micro_batches_and_by_another_torch(
    tiny: Tiny, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept() -> int:
        return len(list((study.path / "probes").glob("*.json")))

    run_here("train", [tiny("budget=3 steps", "impl.micro_batch_rows=1")])
    run_here("train", [tiny("budget=4 steps")])
    assert kept() == 2, "micro-batches of one row are several times slower"
    run_here("train", [tiny("budget=5 steps")])
    assert kept() == 2
    monkeypatch.setattr(torch, "__version__", "99.0")
    run_here("train", [tiny("budget=6 steps")])
    assert kept() == 3


def test_a_run_that_diverges_is_a_result_with_its_last_good_weights(tiny: Tiny, run_here: Run) -> None:
    config = tiny("optim.clip=0", "impl.precision=fp32", "optim.peak_lr=1e30")
    early, late = run_here("train", [replace(config, budget=budget) for budget in ("20 steps", "60 steps")])
    for folder in (early, late):
        record = folder.record_data()
        assert folder.is_done() and record["diverged"] and record["loss"] is None
        assert record["document_standard_error"] is None and not folder.document_losses.exists()
        assert all(torch.isfinite(tensor).all() for tensor in weights(folder).values())
    assert late.record_data()["diverged_at"] <= 25


def test_a_loss_whose_perplexity_is_no_number_is_a_result(tiny: Tiny, run_here: Run, study: Study) -> None:
    [folder] = run_here("train", [tiny("arch.init_std=3000", "optim.clip=0", "budget=1 steps")])
    record = folder.record_data()
    assert record["loss"] > 710 and record["perplexity"] is None and not record["diverged"]
    frame = load_study(study).cells
    assert frame["perplexity"].isna().all() and frame["perplexity"].dtype == float
    assert perplexity(2.0) == math.exp(2) and perplexity(math.inf) is None


def test_what_diverges_on_one_branch_is_no_part_of_the_cells_after_it(
    tiny: Tiny, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch to 60 breaks after its point at 50, the trunk at 80, which the budget of 90 has left by then."""

    def trunk(schedule: Cooldown, step: int) -> float:
        return math.nan if step == 80 else 1.0

    def branch(schedule: Cooldown, step: int, total: int) -> float:
        return math.nan if (step, total) == (55, 60) else 1 - step / total

    monkeypatch.setattr(Cooldown, "trunk", trunk)
    monkeypatch.setattr(Cooldown, "branch", branch)
    configs = [tiny("impl.precision=fp32", f"budget={steps} steps") for steps in (60, 90, 150)]
    together = [result(folder) for folder in run_here("train", configs)]
    assert [record["diverged"] for record, _, _ in together] == [True, False, True]
    assert [record.get("diverged_at") for record, _, _ in together] == [60, None, 100]
    for config, (record, rows, tensors) in zip(configs, together, strict=True):
        shutil.rmtree(study.path / "train")
        shutil.rmtree(study.path / "trunks")
        [alone] = map(result, run_here("train", [config]))
        assert alone[:2] == (record, rows)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in alone[2].items())


def test_micro_batches_give_the_gradient_of_the_whole_batch(tiny: Tiny, study: Study) -> None:
    config = STAGE.resolve(tiny())
    prepared, step = prepare(config.data, study.data_root), step_of(config)
    task = make_task(config.task, config.data, FORWARDS["fast"])
    batch = task.batch(prepared, 0, 0, step.rows)
    gradients = []
    for rows in (0, 5, 1):
        model = build_model(shape_of(config), init_std=0.1, seed=0, attention="eager").double()
        module = TaskModule(model, Objective(task.loss, task.weight), config.optim, 0, micro_batch_rows=rows)
        module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
        loss = module._gradient(0, batch, task.weight(batch))
        gradients.append([loss, *(parameter.grad for parameter in model.parameters())])
    for other in gradients[1:]:
        for whole, parts in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(parts.double(), whole.double(), rtol=1e-10 if whole.ndim else 1e-6, atol=1e-12)


def test_a_batch_too_large_for_the_cpu_is_taken_in_parts(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batch, "free_memory", lambda: 600_000)
    [folder] = run_here("train", [tiny("budget=5 steps", "workers=2")])
    assert 1 <= folder.record_data()["environment"]["micro_batch_rows"] < 16


def test_where_memory_runs_out_the_micro_batch_is_halved_and_the_result_stays(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    [folder] = run_here("train", [tiny("impl=plain", "budget=10 steps")])
    loss = folder.record_data()["loss"]
    assert folder.record_data()["environment"]["micro_batch_rows"] == 16
    folder.clear_result()
    shutil.rmtree(folder.path.parents[1] / "trunks")

    def too_large(model: Any, inputs: Tensor, *rest: Tensor) -> Tensor:
        if len(inputs) > 4:
            raise torch.OutOfMemoryError("made up")
        return library_loss(model, inputs, *rest)

    monkeypatch.setitem(FORWARDS, "library", Forward(too_large, library_logits))
    run_here("train", [tiny("impl=plain", "budget=10 steps")])
    assert folder.record_data()["environment"]["micro_batch_rows"] == 4
    assert folder.record_data()["loss"] == pytest.approx(loss, abs=1e-5)


def test_a_checkpoint_is_on_the_disk_before_the_record_says_that_it_is_there(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync, write_record_data = os.fsync, CellFolder.write_record

    def noted(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def checked(folder: CellFolder, record: dict[str, Any]) -> None:
        files = {file.stat().st_ino: file.name for file in folder.checkpoint.rglob("*")}
        assert "model.safetensors" in files.values() and files.keys() <= set(flushed)
        write_record_data(folder, record)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(CellFolder, "write_record", checked)
    [folder] = run_here("train", [tiny()])
    assert folder.is_done()


def test_a_copy_that_wakes_while_it_writes_leaves_the_checkpoint_of_the_new_holder(
    tiny: Tiny, run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tokenizer = trunk.hugging_face_tokenizer

    def take_over(path: Path) -> Any:
        """What another process does while this one sleeps between the weights and the tokenizer."""
        [folder] = study.folders("train")
        lease = max((folder.path / "lease").glob("*.json"))
        lease.with_name("999999.json").write_bytes(lease.read_bytes())
        folder.checkpoint.mkdir()
        (folder.checkpoint / "model.safetensors").write_text("new")
        return make_tokenizer(path)

    monkeypatch.setattr(trunk, "hugging_face_tokenizer", take_over)
    with pytest.raises(LostLeaseError):
        run_here("train", [tiny()])
    [folder] = study.folders("train")
    assert [file.name for file in folder.checkpoint.iterdir()] == ["model.safetensors"]
    assert (folder.checkpoint / "model.safetensors").read_text() == "new" and not folder.record_path.exists()
    assert not list(folder.path.glob(".checkpoint*")), "nothing is left lying about"
