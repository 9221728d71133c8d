"""Batches of like lengths: killed runs, several devices, and budgets in tokens and FLOPs."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from labelled_tables import finetuning, table_of
from trainlarge.cli import main
from trainlarge.config.schema import StageConfig
from trainlarge.launch.worker import Assignment, run_job
from trainlarge.machine.resources import Resources
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.step import row_flops_of
from trainlarge.training.cells import STAGE
from trainlarge.training.context import TrainContext

Compose = Callable[..., StageConfig]
Run = Callable[[str, Sequence[StageConfig]], list[CellFolder]]
EXACT = ("impl.precision=fp32", "impl.threads=1", "impl.device=cpu")


@pytest.fixture
def bucketed(tmp_path: Path) -> list[str]:
    """Overrides of a training on short rows, in batches of like lengths."""
    return overrides(table_of(tmp_path / "rows.jsonl"))


def overrides(table: Path) -> list[str]:
    """Those of a classification from initial weights."""
    shape = ("arch.width=16", "arch.depth=1", "data.vocab_size=280", "task.batches=bucketed", *EXACT)
    return [text for text in finetuning("x", table, *shape) if not text.startswith("checkpoint=")]


def result(folder: CellFolder) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Weights, and the curve without its clocks."""
    rows = [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in folder.metrics()]
    return load_file(folder.checkpoint / "model.safetensors"), rows


def states(study: Study) -> set[str]:
    return {path.name for path in (study.path / "trunks").glob("*/trunk-*")}


def test_a_killed_run_goes_on_to_the_same_bits(
    compose: Compose, run_here: Run, study: Study, bucketed: list[str]
) -> None:
    config = compose("train", *bucketed, "budget=600 steps", "impl.save_seconds=0.02", "arch.dropout=0.1")
    [folder] = run_here("train", [config])
    weights, rows = result(folder)
    shutil.rmtree(study.path)
    [cell] = make_cells("train", [config])
    study.folder("train", cell.id).freeze(cell)
    server = multiprocessing.get_context("forkserver")
    process = server.Process(target=run_job, args=(Assignment(study.path, "train", (cell.id,), Resources(cores=1)),))
    process.start()
    while process.is_alive() and not states(study):
        time.sleep(0.005)
    assert process.is_alive(), "it is killed while it trains"
    process.kill()
    process.join()
    [again] = run_here("train", [config])
    assert again.train_record().resumed_at, "it goes on from a state"
    assert result(again)[1] == rows
    assert all(torch.equal(tensor, weights[name]) for name, tensor in result(again)[0].items())


@pytest.mark.long
def test_two_processes_give_the_steps_of_one(
    compose: Compose, run_here: Run, study: Study, bucketed: list[str]
) -> None:
    found = []
    for devices in (1, 2):
        [folder] = run_here(
            "train", [compose("train", *bucketed, "optim.eps=1e-3", "budget=20 steps", f"impl.devices={devices}")]
        )
        found.append(result(folder))
        shutil.rmtree(study.path)
    for name, tensor in found[1][0].items():
        # Rounding: 2e-5 after these steps. Adam moves a weight by up to 1e-2 in one of them.
        torch.testing.assert_close(tensor, found[0][0][name], rtol=1e-3, atol=1e-4, msg=name)
    for row, single in zip(found[1][1], found[0][1], strict=True):
        assert row["train_loss"] == pytest.approx(single["train_loss"], rel=1e-5)
        assert row["loss"] == pytest.approx(single["loss"], rel=1e-3)
        assert [row[key] for key in ("step", "tokens", "flops")] == [single[key] for key in ("step", "tokens", "flops")]


@pytest.mark.parametrize(("unit", "column", "amount"), [("tokens", "tokens", 9_000), ("FLOPs", "flops", 3e8)])
def test_a_budget_ends_with_the_first_step_that_reaches_it(
    compose: Compose,
    run_here: Run,
    study: Study,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    unit: str,
    column: str,
    amount: float,
) -> None:
    # Rows that no other test has prepared.
    bucketed = overrides(table_of(tmp_path / "own.jsonl", rows=500 + len(unit)))

    def planned(*more: str) -> dict[str, Any]:
        capfd.readouterr()
        assert main(["plan", "train", *bucketed, *more, "--json"]) == 0
        [job] = json.loads(capfd.readouterr().out)["jobs"]
        return dict(job)

    budget = f"budget={amount:g} {unit}"
    assert planned(budget)["has_full_rows"] and not study.path.exists()
    assert main(["plan", "train", *bucketed, budget]) == 0
    assert "rows of task.batches=bucketed count as full ones" in capfd.readouterr().out
    config = compose("train", *bucketed, budget)
    [folder] = run_here("train", [config])
    record = folder.train_record()
    resolved = STAGE.resolve(config)
    context, size = TrainContext(study, resolved), row_flops_of(resolved)
    longest = context.task.row_lengths(context.prepared, resolved.seed, 16, 0, record.step).max(1).tolist()
    amounts = list(accumulate(16 * (length if unit == "tokens" else size(length)[0]) for length in longest))
    assert amounts[-1] >= amount > amounts[-2] and getattr(record, column) == amounts[-1]
    assert len(set(longest)) > 1, "steps differ"
    folder.clear_result()
    [cell] = planned(budget)["cells"]
    assert (cell["steps"], cell[column]) == (record.step, amounts[-1]) and not planned(budget)["has_full_rows"]
    for more, steps in ((0, 7), (1, 8)):
        [cell] = planned(f"budget={amounts[6] + more} {unit}")["cells"]
        assert cell["steps"] == steps, "a budget that was made of steps gives them back"
