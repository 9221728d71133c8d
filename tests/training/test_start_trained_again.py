"""A checkpoint that is trained again is another one: what starts from it has nothing of the one before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainlarge.sweep.cell_results import WEIGHTS
from trainlarge.sweep.plan import look_ahead, make_plan
from trainlarge.sweep.store import CellFolder, Study

Run = Callable[..., list[CellFolder]]
RECOVERY = ("prune.sparsity=0.5", "recover=retrain", "recover.budget=4 steps")


@pytest.fixture
def chain(tiny: Callable[..., Any], compose: Callable[..., Any], run_here: Run) -> tuple[CellFolder, ...]:
    """A train cell, one that goes on from it, and what is compressed of both."""
    [first] = run_here("train", [tiny("budget=12 steps")])
    [tuned] = run_here("train", [tiny(f"checkpoint={first.id}", "budget=6 steps")])
    configs = [
        compose("compress", "study=tiny", "impl.device=cpu", f"checkpoint={one.id}", *RECOVERY)
        for one in (first, tuned)
    ]
    return first, tuned, *(run_here("compress", [config])[0] for config in configs)


def train_again(folder: CellFolder) -> None:
    """As if the cell had been trained again, on a device that rounds otherwise."""
    path = folder.path / WEIGHTS
    save_file({name: tensor * (1 + 1e-5) for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    folder.write_record_data(folder.record_data())


def again(study: Study, folder: CellFolder, run_here: Run) -> dict[str, torch.Tensor]:
    """Run a cell that must be left to run; its weights."""
    assert look_ahead(study, folder.stage, [folder.cell()]).done == 0
    run_here(folder.stage, [folder.cell().config])
    return load_file(folder.path / WEIGHTS if folder.stage == "train" else folder.packed)


def test_what_was_made_of_the_weights_before_is_made_again_from_the_start(
    chain: tuple[CellFolder, ...], study: Study, run_here: Run
) -> None:
    first, tuned, of_first, of_tuned = chain
    for folder in (tuned, of_first, of_tuned):
        assert not make_plan(study, folder.stage, [folder.cell()]).jobs, "as long as its checkpoint is the same"
    train_again(first)
    assert make_plan(study, "compress", [of_tuned.cell()]).done == 1, "its own checkpoint is the same yet"
    made = [again(study, folder, run_here) for folder in (tuned, of_first, of_tuned)]
    assert tuned.train_record().resumed_at == []
    assert tuned.train_record().checkpoint_weights == first.weights_digest()
    shutil.rmtree(study.path / "trunks")
    for folder, weights in zip((tuned, of_first, of_tuned), made, strict=True):
        folder.clear_result()
        expected = again(study, folder, run_here)
        assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())


def test_a_record_of_before_says_nothing_of_its_start(chain: tuple[CellFolder, ...], study: Study) -> None:
    first, tuned, *_ = chain
    record = tuned.record_data()
    del record["checkpoint_weights"]
    tuned.write_record_data(record)
    train_again(first)
    assert make_plan(study, "train", [tuned.cell()]).done == 1
