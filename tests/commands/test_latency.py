from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainlarge.cli import main
from trainlarge.commands.latency_cells import chosen_cells
from trainlarge.errors import UserError
from trainlarge.latency import break_even, turns
from trainlarge.results.latencies import load_latencies
from trainlarge.sweep.latencies import (
    BREAK_EVENS,
    LATENCIES,
    Latency,
    keep_latencies,
    read_break_evens,
    read_latencies,
)
from trainlarge.sweep.store import CellFolder, Study

FAST = ["--device", "cpu", "--threads", "1", "--rounds", "6", "--runtimes", "checkpoint,csr", "--batch", "2"]


@pytest.fixture(autouse=True)
def one_pass_per_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ROUND_SECONDS", 1e-9)
    monkeypatch.setattr(break_even, "SPARSITIES", (0.5, 0.9, 0.99))


@pytest.fixture
def cells(
    study: Study, tiny: Callable[..., dict[str, Any]], compose: Callable[..., dict[str, Any]], run_here: Any
) -> list[CellFolder]:
    """A train cell, a pruned one of it, and one that lost heads and rounds the inputs of its layers."""
    [train] = run_here("train", [tiny("budget=2 steps", "impl.threads=1", "arch.heads=2")])
    recipes = (["prune.sparsity=0.8"], ["structure=heads", "structure.keep=0.5", "activations=dynamic"])
    configs = [compose("compress", "study=tiny", f"checkpoint={train.id}", *recipe) for recipe in recipes]
    return [train, *run_here("compress", configs)]


def test_cells_are_measured_and_kept(cells: list[CellFolder], study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    train, pruned, cut = cells
    threads = torch.get_num_threads()
    assert main(["latency", "tiny", *(cell.id for cell in cells), *FAST, "--break-even"]) == 0
    assert torch.get_num_threads() == threads
    printed = capsys.readouterr().out
    assert f"train cell {train.id}, 1 of 3" in printed and "kept in" in printed and "faster from" in printed

    rows = {(row.cell, row.runtime): row for row in read_latencies(study)}
    assert len(rows) == 9 and all((row.batch, row.length, row.threads) == (2, 16, 1) for row in rows.values())
    assert all(rows[cell.id, "dense"].seconds for cell in cells)
    assert rows[pruned.id, "csr"].seconds and rows[train.id, "csr"].why_empty
    assert rows[cut.id, "checkpoint"].checkpoint_speedup == 1.0 and rows[cut.id, "dense"].checkpoint_speedup
    # Smaller by formula too: that is what the speedup is to be compared with.
    assert rows[cut.id, "dense"].flops < rows[train.id, "dense"].flops == rows[pruned.id, "dense"].flops
    assert rows[cut.id, "dense"].model_bytes < rows[cut.id, "checkpoint"].model_bytes

    shapes = {(row.outputs, row.inputs, row.tokens) for row in read_break_evens(study)}
    assert len(shapes) == len(read_break_evens(study)) > 2 and {tokens for *_, tokens in shapes} == {32}
    assert all(row.speedups.keys() == {"0.5", "0.9", "0.99"} for row in read_break_evens(study))

    frame = load_latencies(study)
    assert len(frame) == 9 and set(frame["runtime"]) == {"dense", "checkpoint", "csr"}
    measured = frame[frame["why_empty"] == ""]
    assert measured["rows_per_second"].mul(measured["seconds"]).round(6).eq(2).all()
    assert measured["loss"].notna().all() and frame["recipe"].ne("").sum() == 6

    assert main(["report", "tiny"]) == 0
    assert "1 thread, 2 rows of 16 tokens at once" in (study.path / "report" / "index.html").read_text()
    assert (study.path / "report" / "latency.csv").read_text().count("\n") == 10


def test_measuring_again_replaces_the_same_rows_alone(cells: list[CellFolder], study: Study) -> None:
    assert main(["latency", "tiny", cells[0].id, *FAST]) == 0
    before = read_latencies(study)
    assert main(["latency", "tiny", cells[0].id, *FAST, "--runtimes", "csr", "--length", "8"]) == 0
    assert read_latencies(study)[: len(before)] == before and len(read_latencies(study)) == len(before) + 2
    assert main(["latency", "tiny", cells[0].id, *FAST, "--runtimes", "csr"]) == 0
    after = read_latencies(study)
    assert [row.key for row in after] == [row.key for row in read_latencies(study)]
    changed = {row.runtime for row, old in zip(after, before, strict=False) if row != old}
    assert changed == {"dense", "csr"}


def test_which_cells_are_measured(cells: list[CellFolder], study: Study) -> None:
    train, pruned, cut = cells
    assert chosen_cells(study, [pruned.id[:8], pruned.id], None) == [pruned]
    assert chosen_cells(study, [], "prune.sparsity == 0.8") == [pruned]
    assert {cell.id for cell in chosen_cells(study, [train.id], "structure is not None")} <= {train.id, cut.id}
    on_frontier = chosen_cells(study, [], None)
    assert on_frontier[0] == train and {cell.stage for cell in on_frontier[1:]} == {"compress"}
    cut.packed.unlink()
    assert cut not in chosen_cells(study, [], None)
    with pytest.raises(UserError, match=r"^--where=arch.width == 5 is not valid: must be a condition that one of 2"):
        chosen_cells(study, [], "arch.width == 5")
    with pytest.raises(UserError, match=r"^--where=arch\.width === is not valid: must be made of keys"):
        chosen_cells(study, [], "arch.width ===")
    with pytest.raises(UserError, match="no such key: must be one of"):
        chosen_cells(study, [], "arch.breadth == 5")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--batch", "1,none"], "error: --batch=none is not valid: must be a whole number from 1 to 1,000,000"),
        (["--rounds", "5"], "error: --rounds=5 is not valid: must be a whole number from 6 to 1,000,000"),
        (["--length", "0"], "error: --length=0 is not valid: must be a whole number from 1 to 1,000,000"),
        (["--runtimes", "fastest"], "error: --runtimes=fastest is not valid: must be all, or of dense, checkpoint,"),
        (["--device", "tpu"], "error: --device=tpu is not valid: must be one of auto, cpu, cuda"),
        (["ffffffffffff"], "error: cell=ffffffffffff is not valid: must be a cell id of study tiny"),
    ],
)
def test_a_mistake_is_one_line(
    study: Study, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study.path.mkdir()
    assert main(["latency", "tiny", *arguments]) == 2
    [printed] = capsys.readouterr().err.splitlines()
    assert printed.startswith(line)


def test_a_cell_without_a_model_is_refused_before_anything_is_measured(
    cells: list[CellFolder], study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    cells[1].packed.unlink()
    assert main(["latency", "tiny", cells[0].id, cells[1].id, *FAST]) == 2
    assert f"to make them again: trainlarge redo {cells[1].id} --study tiny" in capsys.readouterr().err
    assert main(["latency", "tiny", cells[0].id, *FAST, "--length", "4000"]) == 2
    assert "--length=4000 is not valid: must be 1 to" in capsys.readouterr().err
    assert not (study.path / LATENCIES).exists() and not (study.path / BREAK_EVENS).exists()


def test_a_damaged_file_is_named_and_stays(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    study.path.mkdir()
    for name in (LATENCIES, BREAK_EVENS):
        path = study.path / name
        path.write_text('{"cell": 3}\n')
        assert main(["latency", "tiny"]) == 2
        [printed] = capsys.readouterr().err.splitlines()
        assert printed.startswith(f"error: {path}=damaged is not valid: must be JSON lines")
        assert path.read_text() == '{"cell": 3}\n'
        path.unlink()


def test_rows_of_a_newer_version_are_kept_as_they_are(study: Study) -> None:
    study.path.mkdir()
    row = Latency(
        cell="0123456789ab", stage="train", runtime="dense", batch=1, length=8, device="cpu", device_name="Test CPU",
        threads=1, versions="torch 2", features="", shared=False, measured=0.0, rounds=6, more={"colour": "red"},
    )  # fmt: skip
    keep_latencies(study, [row])
    keep_latencies(study, [])
    assert read_latencies(study) == [row] and not list(study.path.glob("*.tmp"))
