"""A checkpoint is compressed only where it is what its record says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainlarge.cli import main
from trainlarge.commands.show import show_cell
from trainlarge.compression.parent import TOLERANCE
from trainlarge.config.quantize import Uniform
from trainlarge.config.recipe import Recipe
from trainlarge.errors import UserError
from trainlarge.sweep.files import write_json
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder

Run = Callable[..., list[CellFolder]]


@pytest.fixture
def parent(run_here: Run, tiny: Callable[..., dict[str, Any]]) -> CellFolder:
    [folder] = run_here("train", [tiny("impl.device=cpu", "impl.threads=1", "budget=10 steps")])
    return folder


@pytest.fixture
def recipe(parent: CellFolder, compose: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return compose("compress", "study=tiny", f"checkpoint={parent.id}", "quantize.bits=8", "impl.device=cpu")


def without_digests(folder: CellFolder, **changes: Any) -> None:
    """Make the record one of an older version."""
    record = folder.record_data() | changes
    del record["files"]
    write_json(folder.record_path, record)


def change_weights(folder: CellFolder, by: float) -> None:
    path = folder.checkpoint / "model.safetensors"
    weights = load_file(path)
    weights["decoder.bias"] += by * torch.linspace(-1, 1, len(weights["decoder.bias"]))
    save_file(weights, path, metadata={"format": "pt"})


def test_a_changed_checkpoint_fails_and_the_same_commands_make_it_again(
    parent: CellFolder, recipe: dict[str, Any], run_here: Run
) -> None:
    weights = (parent.checkpoint / "model.safetensors").read_bytes()
    change_weights(parent, by=1e-6)
    says = rf"model\.safetensors=damaged is not valid: must be .* again: trainlarge redo {parent.id} --study tiny$"
    with pytest.raises(UserError, match=says):
        run_here("compress", [recipe])
    assert parent.status().state is State.FAILED and "damaged" in (parent.status().error or "")
    run_here("train", [parent.cell().config])
    assert (parent.checkpoint / "model.safetensors").read_bytes() == weights
    [cell] = run_here("compress", [recipe])
    assert cell.record_data()["dense_loss"] == pytest.approx(parent.record_data()["loss"], abs=1e-6)


def test_a_checkpoint_of_an_older_version_must_have_its_loss(
    parent: CellFolder, recipe: dict[str, Any], run_here: Run
) -> None:
    without_digests(parent)
    run_here("compress", [recipe])
    change_weights(parent, by=1.0)
    with pytest.raises(
        UserError, match=r"model\.safetensors=changed is not valid: must be weights with the loss of the record"
    ):
        run_here("compress", [replace(recipe, recipe=Recipe(quantize=Uniform(4)))])


@pytest.mark.parametrize("change", [-2 * TOLERANCE, 2 * TOLERANCE])
def test_a_loss_outside_of_the_tolerance_is_refused(
    parent: CellFolder, recipe: dict[str, Any], run_here: Run, change: float
) -> None:
    without_digests(parent, loss=parent.record_data()["loss"] + change)
    with pytest.raises(UserError, match="changed is not valid: must be weights"):
        run_here("compress", [recipe])


def test_another_evaluation_set_is_refused(parent: CellFolder, recipe: dict[str, Any], run_here: Run) -> None:
    without_digests(parent, data=parent.record_data()["data"] | {"evaluation_fingerprint": "0" * 16})
    with pytest.raises(
        UserError, match=r"evaluation_fingerprint=.* is not valid: must be 0000000000000000, that of train cell"
    ):
        run_here("compress", [recipe])


def test_a_checkpoint_that_was_cleaned_away_leaves_its_cell_done(
    parent: CellFolder, recipe: dict[str, Any], run_here: Run
) -> None:
    for path in parent.checkpoint.iterdir():
        path.unlink()
    parent.checkpoint.rmdir()
    with pytest.raises(UserError, match=r"checkpoint/.*=gone"):
        run_here("compress", [recipe])
    assert parent.is_done()


def test_redo_makes_a_cell_again(parent: CellFolder, capsys: pytest.CaptureFixture[str]) -> None:
    weights = (parent.checkpoint / "model.safetensors").read_bytes()
    change_weights(parent, by=1e-6)
    assert "model.safetensors: damaged; to make it again: trainlarge redo" in show_cell(parent.id, "tiny")
    config = parent.path / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    assert main(["redo", parent.id[:8], "--study", "tiny"]) == 0, "the configuration is taken from the record"
    assert (parent.checkpoint / "model.safetensors").read_bytes() == weights
    assert "seed: 0" in config.read_text() and "as they were written" in show_cell(parent.id, "tiny")
