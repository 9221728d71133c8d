"""Compress cells: old configurations keep their identity, new groups are axes, the stage carries them out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import made
from trainlarge.cli import main
from trainlarge.compression import load_packed
from trainlarge.compression.cells import STAGE
from trainlarge.config.plain import from_plain, to_plain
from trainlarge.config.recipe import Recipe
from trainlarge.config.schema import CompressConfig
from trainlarge.config.structure import Heads
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study

Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
Compose = Callable[..., dict[str, Any]]

FIRST_FORM = {
    "checkpoint": "0123456789ab",
    "prune": {"name": "magnitude", "sparsity": 0.6, "scope": "global", "embeddings": True},
    "quantize": {"name": "uniform", "bits": 4, "granularity": "row", "symmetric": False, "embeddings": True},
    "recover": {"name": "none"},
    "seed": 0,
}
"""A configuration from before there were more slots than two."""


@pytest.fixture
def trained(study: Study, tiny: Compose) -> CellFolder:
    """A train cell that says that it is done: nothing here looks at its weights."""
    [cell] = make_cells("train", [tiny("arch.depth=2")])
    folder = study.folder("train", cell.id)
    folder.freeze(cell)
    folder.write_record_data(made.bare_record(cell.id))
    folder.write_status(Status(State.DONE))
    return folder


def test_cells_from_before_keep_their_ids(trained: CellFolder, compose: Compose) -> None:
    overrides = [f"checkpoint={trained.id}", "study=tiny", "prune.sparsity=0.6", "quantize.bits=4"]
    cell = Cell("compress", STAGE.resolve(compose("compress", *overrides)))
    assert cell.identity["config"] == {**FIRST_FORM, "checkpoint": trained.id}
    assert Cell("compress", from_plain(CompressConfig, FIRST_FORM)).id == "5cfbbc2a6127"


@pytest.mark.parametrize(
    "off",
    [
        "structure=none",
        "structure=heads",
        "factorize=svd",
        "vocabulary=frequent",
        "order=[prune,quantize]",
        "activations=none",
    ],
)
def test_what_does_nothing_does_not_change_the_id(trained: CellFolder, compose: Compose, off: str) -> None:
    overrides = [f"checkpoint={trained.id}", "study=tiny", "prune.sparsity=0.6"]
    plain = STAGE.resolve(compose("compress", *overrides))
    assert Cell("compress", STAGE.resolve(compose("compress", *overrides, off))).id == Cell("compress", plain).id


def test_thirty_two_bits_round_no_activations(trained: CellFolder, compose: Compose) -> None:
    overrides = [f"checkpoint={trained.id}", "study=tiny", "activations=dynamic"]
    ids = [
        Cell("compress", STAGE.resolve(compose("compress", *overrides, f"activations.bits={bits}"))).id
        for bits in (32, 8)
    ]
    assert ids[0] == Cell("compress", STAGE.resolve(compose("compress", *overrides[:2]))).id != ids[1]


def test_a_resolved_configuration_gives_its_recipe_again(trained: CellFolder, compose: Compose) -> None:
    overrides = [f"checkpoint={trained.id}", "study=tiny", "structure=heads", "structure.keep=0.5", "quantize.bits=4"]
    first = STAGE.resolve(compose("compress", *overrides, "order=[quantize,structure]"))
    assert to_plain(first)["order"] == ["quantize", "structure"]
    assert STAGE.resolve(first) == first
    recipe = first.recipe
    assert recipe.structure == Heads(0.5) and recipe.order == ("quantize", "structure")
    other = STAGE.resolve(compose("compress", *overrides))
    assert Cell("compress", other).id != Cell("compress", first).id


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["structure=heads", "structure.keep=2"], r"structure.keep=2"),
        (["structure=heads", "structure.keep=0.5", "order=[prune]"], r"order=\['prune'\]"),
        (["order=[glue]"], r"order=\['glue'\]"),
        (["order=heads"], r"order=heads"),
        (["structure=layer_list"], r"structure.layers is not set: must be a rising list"),
    ],
)
def test_bad_configuration_is_one_line(
    trained: CellFolder, compose: Compose, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        STAGE.resolve(compose("compress", f"checkpoint={trained.id}", "study=tiny", *overrides))


def test_a_job_takes_the_checkpoint_of_its_own_study_wherever_that_lies(
    run_here: Run, tiny: Compose, compose: Compose, study: Study, tmp_path: Path
) -> None:
    [parent] = run_here("train", [tiny()])
    [cell] = make_cells("compress", [compose("compress", "study=tiny", f"checkpoint={parent.id}")])
    study.folder("compress", cell.id).freeze(cell)
    root = tmp_path / "elsewhere"
    root.mkdir()
    (root / ".data").symlink_to(study.data_root.resolve())
    copied = Study(study.path.rename(root / "renamed"))
    job = RunningJob.claim(copied, "compress", [cell.id])
    with job.running():
        STAGE.run(job)
    assert copied.folder("compress", cell.id).is_done() and not study.path.exists()


@pytest.mark.long
def test_a_sweep_over_structures(
    run_here: Run, tiny: Compose, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here("train", [tiny("arch.depth=2")])
    sweeps = tmp_path / "sweeps" / "tiny"
    sweeps.mkdir(parents=True)
    (sweeps / "compress.yaml").write_text(
        "# @package _global_\nsweep:\n  blocks:\n"
        "    - {checkpoint: every, structure: heads, structure.keep: [1.0, 0.5],"
        " structure.importance: [weight, gradient], quantize.bits: [32, 4]}\n"
        "    - {checkpoint: every, structure: layers, structure.keep: 0.5, structure.choice: [top, contribution]}\n"
        "    - {checkpoint: every, vocabulary: frequent, vocabulary.size: 20, factorize: svd, factorize.keep: 0.5}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["compress", "-m", "+sweeps=tiny/compress", "study=tiny", "tracking=none", "impl.device=cpu"]) == 0
    folders = list(study.folders("compress"))
    # Without heads removed both importances are the same cell.
    assert len(folders) == 2 + 4 + 2 + 1
    for folder in folders:
        record, model = folder.record_data(), load_packed(folder.packed)
        assert record["parameters"] == model.num_parameters()
        assert record["file_bytes"] == folder.packed.stat().st_size
        assert Recipe.from_json(record["recipe"]) == folder.cell().as_compress.recipe
        assert json.loads(json.dumps(record)) == record and torch.tensor(record["loss"]).isfinite()
        assert (record["unknown_share"] > 0) == ("vocabulary" in record["order"])
        assert 0 <= record["relative_squared_error"] <= 1
