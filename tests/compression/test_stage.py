"""The compress stage on a real checkpoint: methods that look at training data, and what the record says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from trainlarge.sweep.store import CellFolder

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


def test_a_cell_does_not_depend_on_its_job(compressed: Callable[..., list[CellFolder]]) -> None:
    recipes = [["prune=wanda", "prune.sparsity=0.5"], ["quantize=gptq", "quantize.bits=3"]]
    alone = [compressed(recipe)[0] for recipe in recipes]
    expected = [(folder.packed.read_bytes(), _record(folder)["loss"]) for folder in alone]
    for folder in alone:
        shutil.rmtree(folder.path)
    together = compressed(*recipes)
    assert [(folder.packed.read_bytes(), _record(folder)["loss"]) for folder in together] == expected


def test_the_change_of_each_matrix_lies_beside_the_record(compressed: Callable[..., list[CellFolder]]) -> None:
    dense, rounded = compressed([], ["quantize.bits=4"])
    errors = json.loads(rounded.weight_errors.read_text())
    assert all(name.endswith("weight") for name in errors)
    norm = sum(error["squared_norm"] for error in errors.values())
    moved = sum(error["squared_norm"] * error["relative_squared_error"] for error in errors.values())
    assert _record(rounded)["relative_squared_error"] == pytest.approx(moved / norm) != 0
    assert {error["mean_absolute_change"] for error in json.loads(dense.weight_errors.read_text()).values()} == {0.0}


def test_zstd_finds_what_the_encodings_leave(compressed: Callable[..., list[CellFolder]]) -> None:
    dense, rounded = map(_record, compressed([], ["quantize.bits=4", "quantize.granularity=tensor"]))
    for record in (dense, rounded):
        assert 0 < record["zstd_bytes_without_embeddings"] < record["zstd_bytes"] < 1.01 * record["file_bytes"]
    assert rounded["zstd_bytes"] < dense["zstd_bytes"]
