"""A chain of sweep files on a real SLURM: one command, given again as the cluster gets on with it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from real_slurm import slurm
from trainlarge.cli import main
from trainlarge.launch.slurm.state import GRACE_SECONDS
from trainlarge.sweep.lease import is_held
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study
from waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.long, pytest.mark.timeout(1200), pytest.mark.usefixtures("unforeseen")]
COMMON: dict[str, Any] = {
    "study": "tiny",
    "defaults": [{"override /data": "text"}],
    "impl": {"device": "cpu"},
    "optim": {"batch": 256},
    "schedule": {"warmup_steps": 4},
    "task": {"evaluation_rows": 32},
}
COMMAND = ["run", "chain", "launcher=slurm", "tracking=none"]


@pytest.fixture
def chain(cluster: Path, tmp_path: Path, tiny_text: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shapes and a cell that fails in its job; further training of each; compression of that."""
    data = {"files": [str(tiny_text)], "sequence_length": 16}
    shapes = {"data.vocab_size": 300, "arch.width": [16, 32], "arch.depth": 1, "budget": "20 steps"}
    fails = {"data.vocab_size": 100_000, "arch.width": 16, "arch.depth": 1, "budget": "20 steps"}
    compress = {"where": "checkpoint != None", "blocks": [{"checkpoint": "every", "quantize.bits": 8}]}
    files = {
        "1_train_pretrain": {**COMMON, "data": data, "sweep": {"blocks": [shapes, fails]}},
        "2_train_tune": {**COMMON, "data": data, "sweep": {"blocks": [{"checkpoint": "every", "budget": "6 steps"}]}},
        "3_compress": {"study": "tiny", "impl": {"device": "cpu"}, "sweep": compress},
    }
    folder = tmp_path / "sweeps" / "chain"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.chdir(tmp_path)


def those(study: Study, is_first: bool) -> list[CellFolder]:
    """Train cells that start from initial weights, or the others."""
    return [folder for folder in study.folders("train") if (folder.cell().as_train.checkpoint is None) == is_first]


def ended(folders: Callable[[], list[CellFolder]], count: int) -> Callable[[], bool]:
    """Whether so many cells are there, all of them are done or failed, and the queue is empty."""
    over = (State.DONE, State.FAILED)
    return lambda: (
        len(cells := folders()) == count
        and all(cell.status().state in over for cell in cells)
        and not slurm("squeue", "-h")
    )


def test_a_chain_goes_on_beside_a_cell_that_fails_and_after_a_cancelled_one(
    chain: None, study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND) == 0
    assert "when these jobs are done, the same command continues" in capfd.readouterr().out
    assert len(list(study.folders("train"))) == 3, "nothing of the next file before there are checkpoints"
    wait_for(ended(lambda: those(study, True), 3), seconds=240)
    [bad] = [folder for folder in those(study, True) if not folder.is_done()]

    assert main([*COMMAND, "launcher.sbatch=[--hold]"]) == 0
    submitted = time.monotonic()
    out = capfd.readouterr().out
    assert f"left out of what comes next: cells that start from {bad.id}, since this checkpoint failed" in out
    tuned = those(study, False)
    assert len(tuned) == 2 and bad.id not in {folder.cell().as_train.checkpoint for folder in tuned}
    slurm("scancel", "--user", str(os.getuid()))
    # A job that was submitted lately counts as queued, since SLURM's list may not have it yet.
    wait_for(lambda: not slurm("squeue", "-h") and time.monotonic() - submitted > GRACE_SECONDS + 1, seconds=60)
    assert not any(folder.is_done() or is_held(folder.path) for folder in tuned)

    assert main(COMMAND) == 0
    wait_for(ended(lambda: those(study, False), 2), seconds=240)
    assert all(folder.is_done() for folder in tuned) and not list(study.folders("compress"))
    assert main(COMMAND) == 0
    wait_for(ended(lambda: list(study.folders("compress")), 2), seconds=240)
    assert all(folder.is_done() for folder in study.folders("compress"))
    capfd.readouterr()
    assert main(COMMAND) == 0
    out = capfd.readouterr().out
    assert f"report: {study.path}" in out and "when these jobs are done" in out, "the failed cell is tried once more"
    wait_for(lambda: not slurm("squeue", "-h"), seconds=120)
    assert {folder.status().attempts for folder in [*tuned, *study.folders("compress")]} == {1}
    assert not bad.is_done()
