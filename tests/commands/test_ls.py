"""The list of studies and of cells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.commands.ls import NOTHING, listed, listed_studies
from trainlarge.config.data import DataConfig
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.history import remember_command
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import Study

Tiny = Callable[..., TrainConfig]
Capture = pytest.CaptureFixture[str]


def test_cells_are_listed_with_loss_size_and_id(made_study: Study) -> None:
    cells = listed(made_study)
    assert len(cells) == sum(1 for stage in ("train", "compress") for _ in made_study.folders(stage))
    train = [cell for cell in cells if cell.stage == "train"]
    losses = [cell.loss for cell in train if cell.loss is not None]
    assert losses == sorted(losses) and len(losses) == 12
    assert train[0].what.startswith("modern 64x2, seed 0, 60 s") and train[0].size == "221 k parameters"
    packed = next(cell for cell in cells if cell.stage == "compress")
    assert packed.size.endswith("B") and packed.what.partition(": ")[0] in {cell.cell for cell in train}


def test_cells_that_are_not_done_are_named_from_their_configuration(tiny: Tiny, study: Study, capfd: Capture) -> None:
    cells = make_cells("train", [tiny("budget=1e12 FLOPs", "seed=3"), tiny("budget=150 s")])
    for cell in cells:
        study.folder("train", cell.id).freeze(cell)
    assert main(["ls", "tiny", "--state", "queued", "--json"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {(row["cell"], row["what"], row["loss"]) for row in rows} == {
        (cells[0].id, "modern 16x1, seed 3, 1 TFLOPs", None),
        (cells[1].id, "modern 16x1, seed 0, 150 s", None),
    }
    assert main(["ls", "tiny", "--stage", "compress"]) == 0
    assert capfd.readouterr().out == "no cells\n"


@pytest.mark.parametrize("damage", ["", "a: [", "\tx", "arch: 3\n", "\xff", "budget: []\n", "x", "- 1\n"])
def test_a_damaged_cell_stays_in_the_list(damage: str, tiny: Tiny, study: Study, capfd: Capture) -> None:
    (cell,) = make_cells("train", [tiny()])
    folder = study.folder("train", cell.id)
    folder.freeze(cell)
    folder.config_path.write_bytes(damage.encode("latin-1"))
    assert [(each.cell, each.what) for each in listed(study)] == [(cell.id, NOTHING)]
    assert main(["ls", "tiny"]) == 0
    assert cell.id in capfd.readouterr().out


def test_studies_are_listed(study: Study, tiny: Tiny, capfd: Capture) -> None:
    assert main(["ls"]) == 0
    assert "no study" in capfd.readouterr().out
    (cell,) = make_cells("train", [tiny()])
    study.folder("train", cell.id).freeze(cell)
    assert main(["ls"]) == 0
    header, row, *_ = capfd.readouterr().out.splitlines()
    assert header.split()[0] == "study" and row.split()[:4] == ["tiny", "0", "of", "1"]
    assert main(["ls", "--json"]) == 0
    [line] = capfd.readouterr().out.splitlines()
    assert json.loads(line) | {"age": 0} == {
        "study": "tiny", "path": str(study.path), "cells": {"train": 1, "compress": 0},
        "done": {"train": 0, "compress": 0}, "age": 0,
    }  # fmt: skip
    assert main(["ls", "nowhere"]) == 2


def test_folders_are_listed_by_their_paths(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate(("a/bert", "b/bert", "/elsewhere/bert")):
        checkpoint, digest = str(tmp_path / place), f"{number:016x}"
        config = CompressConfig(
            checkpoint=checkpoint, checkpoint_digest=digest, data=DataConfig(), task=MaskedLMConfig()
        )
        study.folder("compress", Cell("compress", config).id).freeze(Cell("compress", config))
    whats = {cell.what.partition(":")[0] for cell in listed(study)}
    assert whats == {"a/bert", "b/bert", "/elsewhere/bert"}


def test_a_study_is_as_old_as_its_last_command(study: Study, tiny: Tiny) -> None:
    (cell,) = make_cells("train", [tiny()])
    study.folder("train", cell.id).freeze(cell)
    for path in (study.path / "train", study.path):
        os.utime(path, (0, 0))
    assert listed_studies()[0].age > 1e9
    remember_command(study, "train", "trainlarge train", [cell.id])
    os.utime(study.path, (0, 0))
    assert listed_studies()[0].age < 1e6


def test_a_reader_that_has_seen_enough_is_no_error(made_study: Study) -> None:
    code = "import sys; from trainlarge.cli import main; sys.exit(main(['ls', 'made']))"
    environment = {"TRAINLARGE_STUDIES": str(made_study.path.parent), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
