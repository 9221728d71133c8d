"""Every task is trained, compressed and read as a study."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from trainlarge.compression import load_packed
from trainlarge.compression.model_tensors import entries_of
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.data.label_table import is_selection
from trainlarge.data.labelled import LabelledData
from trainlarge.errors import UserError
from trainlarge.models.build import load_model
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS
from trainlarge.models.head_names import find_head
from trainlarge.results.frames import load_study
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.label_metrics import number_scores
from trainlarge.tasks.step import row_flops_of, step_of
from trainlarge.tasks.task import make_task
from trainlarge.training.cells import STAGE

Tiny = Callable[..., TrainConfig]
Compose = Callable[..., StageConfig]
Run = Callable[[str, Sequence[StageConfig]], list[CellFolder]]

WORDS = {"good": ["fine", "great", "lovely", "bright"], "bad": ["poor", "grim", "dull", "sad"]}


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """Labelled sentences whose label is in one of their words."""
    draw = random.Random(0)
    rows = []
    for _ in range(1200):
        label = draw.choice(sorted(WORDS))
        text = " ".join(
            [
                *draw.choices(["the", "a", "film", "was", "by", "and", "with"], k=draw.randint(1, 9)),
                draw.choice(WORDS[label]),
            ]
        )
        rows.append(json.dumps({"text": text, "label": label}))
    path = tmp_path / "sentences.jsonl"
    path.write_text("\n".join(rows))
    return path


RECIPES = (
    ("prune=magnitude", "prune.sparsity=0.3", "quantize=uniform", "quantize.bits=8", "compress_head=false"),
    ("structure=heads", "structure.keep=0.5", "structure.importance=gradient", "prune=none", "quantize=gptq"),
    ("vocabulary=frequent", "vocabulary.size=30", "prune=none", "quantize=none", "activations=static"),
    ("structure=layers", "structure.keep=1", "structure.choice=contribution", "prune=wanda", "prune.sparsity=0.5"),
    ("prune=magnitude", "prune.sparsity=0.6", "recover=retrain", "recover.budget=10 steps", "quantize=none"),
    ("prune=none", "quantize=mixed", "quantize.bits=5", "quantize.sensitivity=model"),
)
"""Pruning and quantization, recovery, and every method that looks at calibration data, its labels, or tokens."""


def check_compression(folder: CellFolder, compose: Compose, run_here: Run, study: Study) -> None:
    """Losses of the records are those of the packed files, by the task's own evaluation."""
    common = ("study=tiny", "tracking=none", f"checkpoint={folder.id}")
    results = run_here("compress", [compose("compress", *common, *recipe) for recipe in RECIPES])
    assert [result.status().error for result in results] == [None] * len(RECIPES)
    parent, task = (
        folder.record_data(),
        make_task(folder.cell().as_train.task, folder.cell().as_train.data, FORWARDS["library"]),
    )
    data = task.evaluation_set(task.prepare(study.data_root))
    model = load_model(folder.checkpoint, head=Head(folder.cell().as_train.task.head))
    dense = task.evaluate(model, data)
    for result in results:
        record = result.record_data()
        assert record["dense_scores"] == pytest.approx({name: parent[name] for name in dense.metrics}, abs=1e-5)
        for name, change in record["changes"].items():
            assert change["value"] == pytest.approx(record[name] - parent[name], abs=1e-5)
            assert change["low"] <= change["value"] <= change["high"]
        assert record["loss_increase_low"] <= record["loss_increase"] <= record["loss_increase_high"]
        assert record["dense_loss"] == pytest.approx(parent["loss"], abs=1e-5)
        assert record["data"]["evaluation_fingerprint"] == parent["data"]["evaluation_fingerprint"]
        if "vocabulary" not in record["recipe"]:
            by_file = task.evaluate(load_packed(result.packed), data)
            assert record["loss"] == pytest.approx(by_file.loss, abs=1e-4), record["description"]
            assert abs(record["right_to_wrong"] - int((dense.right & ~by_file.right).sum())) <= 1
            assert abs(record["wrong_to_right"] - int((~dense.right & by_file.right).sum())) <= 1
        else:
            assert 0 < record["unknown_share"] < 0.5
    head, whole, before = find_head(model), load_packed(results[0].packed).state_dict(), entries_of(model)
    own = [name for name in before if head.holds(name) and before[name] is not model.get_input_embeddings().weight]
    assert all(torch.equal(whole[name], before[name]) for name in own)
    check_folder(folder, compose, run_here)
    frames = load_study(study)
    compression = frames.compression.set_index("cell")
    assert compression["compress_head"].to_dict() == {result.id: result is not results[0] for result in results}
    assert compression["dense_accuracy"].tolist() == pytest.approx([parent["accuracy"]] * len(results), abs=1e-5)
    assert frames.cells["loss"].tolist() == [parent["loss"]]
    assert set(frames.compression["loss"]) == {result.record_data()["loss"] for result in results}


def check_folder(folder: CellFolder, compose: Compose, run_here: Run) -> None:
    """The checkpoint as any Hugging Face folder, of a study of its own: its tokenizer reads the text."""
    config, record = folder.cell().config, folder.record_data()
    task = [f"task.{key}={value}" for key, value in config.task.plain.items() if key != "name" and value is not None]
    data = [f"data.{key}={config.data.plain[key]}" for key in ("files", "sequence_length", "split")]
    source = (f"checkpoint={folder.checkpoint}", f"task={config.task.name}", "data=text", *task, *data)
    recipe = ("prune=magnitude", "prune.sparsity=0.5", "quantize=none")
    [result] = run_here("compress", [compose("compress", "study=tiny", "tracking=none", *source, *recipe)])
    assert result.record_data()["dense_loss"] == pytest.approx(record["loss"], abs=1e-5)
    result.clear_result()


@pytest.mark.parametrize("arch", ["modern", "roberta", "llama"])
def test_classification(tiny: Tiny, compose: Compose, run_here: Run, study: Study, sentences: Path, arch: str) -> None:
    overrides = (f"arch={arch}", "task=classification", f"data.files=[{sentences}]", "budget=60 steps")
    [folder] = run_here("train", [tiny(*overrides, "optim.lr=1e-2")])
    record, step = folder.record_data(), step_of(folder.cell().config)
    assert record["data"]["token_frequency_loss"] == pytest.approx(math.log(2), abs=0.02)
    assert record["loss"] < 0.1 and record["accuracy"] > 0.95, "the label is in one word of the sentence"
    assert record["flops"] == 60 * step.flops and record["executed_flops"] == 60 * step.executed_flops
    assert record["environment"]["forward"] == ("library" if arch == "llama" else "fast")
    model = AutoModelForSequenceClassification.from_pretrained(folder.checkpoint).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == record["parameters"]
    check_compression(folder, compose, run_here, study)


def test_batches_of_like_lengths(tiny: Tiny, compose: Compose, run_here: Run, study: Study, sentences: Path) -> None:
    overrides = ("task=classification", f"data.files=[{sentences}]", "optim.lr=1e-2", "task.batches=bucketed")
    cells = [tiny(*overrides, f"budget={budget}") for budget in ("40 steps", "2 epochs")]
    folders = run_here("train", cells)
    config, record = folders[0].cell().as_train, folders[0].record_data()
    task = make_task(config.task, config.data, FORWARDS["library"])
    prepared, rows, flops = task.prepare(study.data_root), step_of(config).rows, row_flops_of(config)
    batches = [task.batch(prepared, config.seed, step, rows) for step in range(40)]
    shapes, real = [batch["input_ids"].shape for batch in batches], sum(int(b["attention_mask"].sum()) for b in batches)
    tokens = sum(count * length for count, length in shapes)
    assert all(batch["attention_mask"].sum(1).max() == batch["input_ids"].shape[1] for batch in batches)
    assert {count for count, _ in shapes} == {rows} and len({length for _, length in shapes}) > 3
    assert record["tokens"] == tokens < 40 * config.optim.batch
    whole, executed = (sum(count * flops(length)[of] for count, length in shapes) for of in (0, 1))
    assert record["flops"] == whole > record["executed_flops"] == executed
    assert record["data"]["padding_share"] == pytest.approx(1 - real / tokens) and record["data"]["padding_share"] < 0.3
    epochs = folders[1].record_data()
    assert epochs["data"]["epochs"] == pytest.approx(2, abs=0.1)
    model = AutoModelForSequenceClassification.from_pretrained(folders[0].checkpoint)
    data = task.evaluation_set(prepared)
    together, apart = task.evaluate(model, data), task.evaluate(model, replace(data, by_length=False))
    assert data.by_length and torch.equal(together.predictions, apart.predictions)
    torch.testing.assert_close(together.outputs, apart.outputs, rtol=1e-5, atol=1e-6)
    assert together.metrics == pytest.approx(dict(apart.metrics), rel=1e-6)
    common = ("study=tiny", "tracking=none", f"checkpoint={folders[0].id}", "quantize=none")
    recipe = ("prune=magnitude", "prune.sparsity=0.5", "recover=retrain", "recover.budget=5 steps")
    [recovered] = run_here("compress", [compose("compress", *common, *recipe)])
    more = [task.batch(prepared, config.seed, step, rows)["input_ids"].shape for step in range(40, 45)]
    assert recovered.record_data()["recover_flops"] == sum(count * flops(length)[0] for count, length in more)


def test_bucketed_batches_are_not_compiled(tiny: Tiny, sentences: Path) -> None:
    options = ("task.batches=bucketed", "impl.compile=inductor")
    config = tiny("task=classification", f"data.files=[{sentences}]", *options)
    with pytest.raises(UserError, match=r"^impl\.compile=inductor is not valid: must be none with task\.batches="):
        STAGE.resolve(config)


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    """Sentences with a number that one of their words stands for."""
    draw, numbers = random.Random(0), {"grim": -1.5, "dull": -0.5, "fine": 0.5, "great": 2}
    path, rows = tmp_path / "ratings.jsonl", []
    for _ in range(900):
        word = draw.choice(sorted(numbers))
        text = " ".join([*draw.choices(["the", "a", "film", "was"], k=draw.randint(1, 6)), word])
        rows.append(json.dumps({"text": text, "label": numbers[word]}))
    path.write_text("\n".join(rows))
    return path


def test_regression(tiny: Tiny, compose: Compose, run_here: Run, study: Study, ratings: Path) -> None:
    overrides = (
        "task=regression",
        f"data.files=[{ratings}]",
        "data.vocab_size=266",
        "budget=80 steps",
        "optim.lr=1e-2",
    )
    [folder] = run_here("train", [tiny(*overrides)])
    record = folder.record_data()
    assert record["baseline"] == {"pearson": 0.0, "spearman": 0.0}
    assert record["loss"] < 0.5 * record["data"]["token_frequency_loss"] and record["spearman"] > 0.7
    common = ("study=tiny", "tracking=none", f"checkpoint={folder.id}", "prune=none")
    [compressed] = run_here("compress", [compose("compress", *common, "quantize=gptq", "quantize.bits=3")])
    for result in (folder, compressed):
        check_predictions(result, number_scores)
    assert load_study(study).compression["spearman"].tolist() == [compressed.record_data()["spearman"]]


def check_predictions(folder: CellFolder, scores: Callable[..., dict[str, float]]) -> None:
    """The scores of a record are those of its file of predictions."""
    record = folder.record_data()
    with np.load(folder.path / "predictions.npz", allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    assert "predictions.npz" in record["files"]
    assert len({len(values) for values in kept.values()}) == 1 and len(set(kept["row"])) == len(kept["row"]) >= 60
    found = scores(kept["label"].astype(float), kept["prediction"].astype(float))
    assert found == {name: record[name] for name in found}
    assert kept["loss"].astype(float).mean() == pytest.approx(record["loss"], abs=1e-15)


def test_every_score_is_that_of_scikit_learn_on_the_saved_predictions(
    tiny: Tiny, compose: Compose, run_here: Run, sentences: Path
) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    overrides = ("task=classification", f"data.files=[{sentences}]", "budget=20 steps", "optim.lr=1e-2")
    [folder] = run_here("train", [tiny(*overrides)])
    common = ("study=tiny", "tracking=none", f"checkpoint={folder.id}", "prune=none")
    [compressed] = run_here("compress", [compose("compress", *common, "quantize=uniform", "quantize.bits=2")])

    def by_scikit_learn(labels: object, predictions: object) -> dict[str, float]:
        return {
            "accuracy": metrics.accuracy_score(labels, predictions),
            "f1": metrics.f1_score(labels, predictions),
            "matthews": pytest.approx(metrics.matthews_corrcoef(labels, predictions), abs=1e-15),
        }

    for result in (folder, compressed):
        check_predictions(result, by_scikit_learn)
        with np.load(result.path / "predictions.npz") as file:
            shares = np.exp(file["outputs"].astype(float)) / np.exp(file["outputs"].astype(float)).sum(1, keepdims=True)
            assert metrics.log_loss(file["label"], shares) == pytest.approx(result.record_data()["loss"], rel=1e-6)
    share, baseline = np.load(folder.path / "predictions.npz")["label"].mean(), folder.record_data()["baseline"]
    assert min(abs(baseline["accuracy"] - one) for one in (share, 1 - share)) < 1e-12, "one label for all rows"
    assert baseline["matthews"] == 0


def test_rows_are_held_out_to_choose_by(tiny: Tiny, run_here: Run, study: Study, sentences: Path) -> None:
    overrides = ("task=classification", f"data.files=[{sentences}]", "optim.lr=1e-2", "task.selection_share=0.2")
    cells = [tiny(*overrides, "budget=40 steps"), tiny(*overrides, "budget=2 epochs", "seed=1", "data.fraction=0.9")]
    folders = run_here("train", cells)
    records = [folder.record_data() for folder in folders]
    task = make_task(folders[0].cell().as_train.task, folders[0].cell().as_train.data, FORWARDS["library"])
    prepared = task.prepare(study.data_root)
    assert isinstance(prepared, LabelledData)
    held_out, count = is_selection(prepared.train_rows, 0.2), len(prepared.train_rows)
    batch, seen = cells[0].optim.batch // 16, set[bytes]()
    for step in range(count // batch):
        seen |= {row.numpy().tobytes() for row in task.batch(prepared, 0, step, batch)["input_ids"]}
    rows = prepared.rows("train", np.flatnonzero(held_out), 16)["input_ids"]
    assert not seen & {row.tobytes() for row in rows}, "nothing is trained on them"
    data = task.selection_set(prepared)
    assert data is not None and len(data.labels) == 64, "task.evaluation_rows of them"
    for folder, record in zip(folders, records, strict=True):
        model = AutoModelForSequenceClassification.from_pretrained(folder.checkpoint)
        assert record["selection"] == pytest.approx(dict(task.evaluate(model, data).metrics))
        assert record["selection"] != {name: record[name] for name in record["selection"]}
    trained = count - held_out.sum()
    assert records[0]["data"]["train_tokens"] == 16 * trained
    assert records[1]["step"] == 2 * round(0.9 * trained) // batch
    cells_frame = load_study(study).cells.set_index("cell")
    assert cells_frame.loc[folders[0].id, "selection_accuracy"] == records[0]["selection"]["accuracy"]


def test_causal_lm(tiny: Tiny, compose: Compose, run_here: Run, study: Study) -> None:
    [folder] = run_here("train", [tiny("arch=llama", "task=causal_lm", "budget=120 steps")])
    record, step = folder.record_data(), step_of(folder.cell().config)
    assert record["loss"] < folder.metrics()[0]["loss"] - 0.1 and record["loss"] < 4
    assert step.predictions == 15 and record["flops"] == 120 * step.flops == record["executed_flops"]
    model = AutoModelForCausalLM.from_pretrained(folder.checkpoint).eval()
    task = make_task(folder.cell().as_train.task, folder.cell().as_train.data, FORWARDS["fast"])
    data = task.evaluation_set(task.prepare(study.data_root))
    with torch.no_grad():
        by_library = model(input_ids=data.batch["input_ids"], labels=data.batch["input_ids"]).loss.item()
    assert by_library == pytest.approx(record["loss"], abs=1e-5)
    check_compression(folder, compose, run_here, study)
