"""The compress stage on a real checkpoint: methods that look at training data, and what the record says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainlarge.commands.export import export_cell
from trainlarge.compression import evaluated_model, load_packed
from trainlarge.compression.checkpoint import find_checkpoint
from trainlarge.compression.stored.mapped_tensors import zeros_in_pages
from trainlarge.errors import UserError
from trainlarge.models.fake_quantize import has_fake_quantized_inputs
from trainlarge.models.forward import FORWARDS
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.task import make_task

Run = Callable[..., list[CellFolder]]


@pytest.fixture
def compressed(
    tiny: Callable[..., dict[str, Any]], compose: Callable[..., dict[str, Any]], run_here: Run
) -> Callable[..., list[CellFolder]]:
    """Trains a tiny checkpoint and compresses it in one job, by a list of overrides for each recipe."""
    [parent] = run_here("train", [tiny()])

    def run(*recipes: list[str]) -> list[CellFolder]:
        common = ["study=tiny", f"checkpoint={parent.path.name}", "tracking=none"]
        return run_here("compress", [compose("compress", *common, *recipe) for recipe in recipes])

    return run


def _record(folder: CellFolder) -> dict[str, Any]:
    return json.loads((folder.path / "record.json").read_text())


def test_methods_that_look_at_data_run_beside_others(compressed: Callable[..., list[CellFolder]]) -> None:
    recipes = [
        ["prune.sparsity=0.5"],
        ["prune=wanda", "prune.sparsity=0.5"],
        ["prune=sparsegpt", "prune.sparsity=0.5", "prune.calibration_rows=64"],
        ["prune=two_of_four", "quantize=ternary"],
        ["quantize=gptq", "quantize.bits=3"],
        ["quantize=kmeans", "quantize.bits=3"],
        ["quantize=mixed", "quantize.bits=3.5"],
    ]
    records = [_record(folder) for folder in compressed(*recipes)]
    assert [record["sparsity"] for record in records] == [0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]
    assert [record["bits"] for record in records] == [32, 32, 32, 2, 3, 3, 3.5]


def test_the_record_tells_the_bits_of_embeddings(compressed: Callable[..., list[CellFolder]]) -> None:
    recipes = [[], ["quantize.embedding_bits=8"], ["quantize.embeddings=false"]]
    records = [_record(folder) for folder in compressed(*[["quantize.bits=4", *recipe] for recipe in recipes], [])]
    assert [(record["bits"], record["embedding_bits"]) for record in records] == [(4, 4), (4, 8), (4, 32), (32, 32)]
    assert len({record["file_bytes"] for record in records}) == 4


def test_a_cell_does_not_depend_on_its_job(compressed: Callable[..., list[CellFolder]]) -> None:
    recipes = [["prune=wanda", "prune.sparsity=0.5"], ["quantize=gptq", "quantize.bits=3"]]
    alone = [compressed(recipe)[0] for recipe in recipes]
    expected = [(folder.packed.read_bytes(), _record(folder)["loss"]) for folder in alone]
    for folder in alone:
        shutil.rmtree(folder.path)
    together = compressed(*recipes)
    assert [(folder.packed.read_bytes(), _record(folder)["loss"]) for folder in together] == expected


def test_neither_a_result_nor_a_refusal_depends_on_the_job(compressed: Callable[..., list[CellFolder]]) -> None:
    recipes = [
        ["prune.sparsity=0.3"],
        ["prune.sparsity=0.6", "quantize.bits=4"],
        ["prune=two_of_four"],
        ["prune=magnitude", "prune.scope=block", "prune.m=32", "prune.sparsity=0.5"],
        ["vocabulary=frequent", "vocabulary.size=2"],
        ["prune=sparsegpt", "prune.sparsity=0.3"],
        ["quantize=mixed", "quantize.bits=3.5"],
        ["quantize=mixed", "quantize.bits=5", "quantize.calibration_rows=1"],
    ]  # fmt: skip
    alone = [_outcome(*compressed(recipe)) for recipe in recipes]
    assert [outcome[0] for outcome in alone] == [*["done"] * 3, *["failed"] * 2, *["done"] * 3]
    for order in (recipes, recipes[::-1]):
        together = [_outcome(folder) for folder in compressed(*order)]
        assert together == (alone if order is recipes else alone[::-1])


def _outcome(folder: CellFolder) -> tuple[Any, ...]:
    """State of a cell with what it wrote or why it failed, after which it is forgotten."""
    status = folder.status()
    done = status.state == State.DONE
    outcome = (folder.packed.read_bytes(), _without_times(_record(folder))) if done else status.error
    shutil.rmtree(folder.path)
    return str(status.state), outcome


def test_a_cell_does_not_depend_on_how_memory_is_saved(
    compressed: Callable[..., list[CellFolder]], monkeypatch: pytest.MonkeyPatch
) -> None:
    half, four = ["prune.sparsity=0.5"], ["quantize.bits=4"]
    recipes = [[], half, four, [*half, *four], ["prune=wanda", *half], ["quantize=gptq", *four],
               ["activations=dynamic", "quantize.bits=8"], ["structure=heads", *four],
               ["factorize=svd", *four]]  # fmt: skip
    results, saved = [], []
    monkeypatch.setattr(
        evaluated_model, "zeros_in_pages", lambda like: saved.append(len(results)) or zeros_in_pages(like)
    )
    for large_bytes in (evaluated_model.LARGE_BYTES, 0):
        monkeypatch.setattr(evaluated_model, "LARGE_BYTES", large_bytes)
        folders = compressed(*recipes)
        results.append([(folder.packed.read_bytes(), _without_times(_record(folder))) for folder in folders])
        for folder in folders:
            shutil.rmtree(folder.path)
    assert results[0] == results[1]
    assert saved == [1], "only the second job saves memory"


def _without_times(record: dict[str, Any]) -> dict[str, Any]:
    """Without what other work on the machine changes, too."""
    return {key: value for key, value in record.items() if key not in {"seconds", "provenance", "environment", "seal"}}


def test_the_change_of_each_matrix_lies_beside_the_record(compressed: Callable[..., list[CellFolder]]) -> None:
    dense, rounded = compressed([], ["quantize.bits=4"])
    errors = json.loads(rounded.weight_errors.read_text())
    assert all(name.endswith("weight") for name in errors)
    norm = sum(error["squared_norm"] for error in errors.values())
    moved = sum(error["squared_norm"] * error["relative_squared_error"] for error in errors.values())
    assert _record(rounded)["relative_squared_error"] == pytest.approx(moved / norm) != 0
    assert {error["mean_absolute_change"] for error in json.loads(dense.weight_errors.read_text()).values()} == {0.0}


def test_losses_per_document_give_loss_and_increase(compressed: Callable[..., list[CellFolder]]) -> None:
    dense, rounded = compressed([], ["quantize.bits=3"])
    kept = json.loads(rounded.document_losses.read_text())
    predictions, record = sum(kept["predictions"]), _record(rounded)
    assert sum(kept["loss"]) / predictions == pytest.approx(record["loss"], abs=1e-4)
    assert sum(kept["dense_loss"]) / predictions == pytest.approx(record["dense_loss"], abs=1e-4)
    assert kept["dense_loss"] == json.loads(dense.document_losses.read_text())["loss"]
    assert record["increase_document_standard_error"] > 0 == _record(dense)["increase_document_standard_error"]
    assert record["data"]["evaluation_documents"] == len(kept["documents"])


def test_zstd_finds_what_the_encodings_leave(compressed: Callable[..., list[CellFolder]]) -> None:
    dense, rounded = map(_record, compressed([], ["quantize.bits=4", "quantize.granularity=tensor"]))
    for record in (dense, rounded):
        assert 0 < record["zstd_bytes_without_embeddings"] < record["zstd_bytes"] < 1.01 * record["file_bytes"]
        assert record["coded_bytes_without_embeddings"] < record["coded_bytes"] <= record["file_bytes"]
    assert rounded["zstd_bytes"] < dense["zstd_bytes"]
    assert 0 < rounded["entropy_bits"] < 4 and "entropy_bits" not in dense


def test_an_entropy_coded_cell_has_the_weights_and_the_bytes_that_were_announced(
    compressed: Callable[..., list[CellFolder]],
) -> None:
    fixed, coded = compressed(["quantize.bits=4"], ["quantize.bits=4", "entropy_coding=zstd"])
    assert _record(coded)["file_bytes"] == _record(fixed)["coded_bytes"] == coded.packed.stat().st_size
    assert _record(coded)["loss"] == _record(fixed)["loss"] and coded.id != fixed.id


def test_rounded_activations_are_evaluated_as_the_file_computes(
    compressed: Callable[..., list[CellFolder]], tmp_path: Path
) -> None:
    eight = ["quantize.bits=8"]
    recipes = [eight, [*eight, "activations=dynamic"], [*eight, "activations=static"]]
    plain, dynamic, static = folders = compressed(*recipes, [*eight, "activations=static", "activations.bits=2"])[:3]
    records = [_record(folder) for folder in folders]
    assert [record["activation_bits"] for record in records] == [32, 8, 8]
    assert len({record["loss"] for record in records}) == 3
    assert all(abs(record["loss"] - records[0]["loss"]) < 0.05 for record in records)
    assert [has_fake_quantized_inputs(load_packed(folder.packed)) for folder in folders] == [False, True, True]
    assert records[1]["loss"] == pytest.approx(_loss_of_file(dynamic), abs=1e-6)
    assert records[2]["loss"] == pytest.approx(_loss_of_file(static), abs=1e-6)
    export_cell(plain.id, tmp_path / "plain", "tiny")
    with pytest.raises(
        UserError, match=rf"^cell={dynamic.id} is not valid: must be .*this one is read by trainlarge.load_pack"
    ):
        export_cell(dynamic.id, tmp_path / "dynamic", "tiny")


def _loss_of_file(folder: CellFolder) -> float:
    """Of the packed file, evaluated as the train cell's own evaluation set asks."""
    config = find_checkpoint(folder.cell().as_compress)
    task = make_task(config.task, config.data, FORWARDS["fast"])
    data = task.evaluation_set(task.prepare(Study.named("tiny").data_root))
    return task.evaluate(load_packed(folder.packed), data).loss
