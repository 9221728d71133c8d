"""What a command says when its cells are done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import made
from trainlarge.cli import main
from trainlarge.commands.summary import doubts, next_steps, summary
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.engine import Outcome
from trainlarge.sweep.plan import Plan, make_cells
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]


def outcome_of(study: Study, *folders: CellFolder) -> Outcome:
    return Outcome(study, Plan(folders[0].stage, tuple(folder.cell() for folder in folders), ()), ())


def test_one_cell_says_its_loss_its_folder_and_what_to_do_next(
    tiny_overrides: list[str], study: Study, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *tiny_overrides, "budget=5 steps", "schedule.warmup_steps=5", "impl.threads=1"]) == 0
    (folder,) = study.folders("train")
    printed = capfd.readouterr().out
    first, *lines = printed.splitlines()
    assert first.startswith("train: 1 cell, 0 done, 1 job to run in ")
    assert lines[0].startswith(
        f"train cell {folder.id}: loss {folder.record_data()['loss']:.4f} nats per masked token, "
    )
    assert lines[1] == f"folder: {folder.path}"
    assert "1 of 1 cell ended inside the warm-up (schedule.warmup_steps=5)" in lines[2]
    assert "learned no more than frequencies" in lines[3]
    assert lines[4:] == [
        f"next: trainlarge show {folder.id} --study tiny",
        f"next: trainlarge compress study=tiny checkpoint={folder.id} prune.sparsity=0.6 quantize.bits=4",
        "next: trainlarge report tiny",
    ]
    assert main(["compress", "study=tiny", f"checkpoint={folder.id}", "quantize.bits=4", "tracking=none"]) == 0
    (compressed,) = study.folders("compress")
    record, lines = compressed.compress_record(), capfd.readouterr().out.splitlines()
    assert lines[1].startswith(f"compress cell {compressed.id}: loss {record.scores['loss']:.4f} (")
    assert f"({record.loss_increase:+.4f} by 4 bit row), " in lines[1] and lines[2] == f"folder: {compressed.path}"
    doubted = ("1 of 1 checkpoint ended inside the warm-up", "1 of 1 checkpoint learned no more than frequencies")
    assert all(text in line for text, line in zip(doubted, lines[3:5], strict=True))
    assert lines[5:] == [f"next: trainlarge show {compressed.id} --study tiny", "next: trainlarge report tiny"]
    assert main(["plan", "compress", "study=tiny", f"checkpoint={folder.id}", "quantize.bits=3", "tracking=none"]) == 0
    assert "no more than frequencies" in capfd.readouterr().out


def test_several_cells_say_what_to_do_next_and_nothing_where_all_have_learned(made_study: Study) -> None:
    folders = list(made_study.folders("train"))
    assert summary(outcome_of(made_study, *folders)) == []
    assert "next: trainlarge ls made" in next_steps(outcome_of(made_study, *folders))


def test_nothing_is_said_to_come_next_where_a_cell_failed_or_waits(made_study: Study) -> None:
    cell = next(made_study.folders("train")).cell()
    plan = Plan("train", (cell,), ())
    assert next_steps(Outcome(made_study, plan, (cell.id,))) == []
    assert next_steps(Outcome(made_study, plan, (), is_submitted=True)) == []
    assert summary(Outcome(made_study, plan, (), is_submitted=True)) == []


def test_of_records_that_do_not_say_or_cannot_be_read_nothing_is_doubted(tiny: Tiny, study: Study) -> None:
    cells = make_cells("train", [tiny(), tiny("seed=1")])
    folders = [study.folder("train", cell.id) for cell in cells]
    for folder, cell in zip(folders, cells, strict=True):
        folder.freeze(cell)
    record = made.any_record(cells[0].id)
    folders[0].write_record(replace(record, data=replace(record.data, token_frequency_loss=None)))
    folders[1].write_record_data(made.bare_record(cells[1].id))
    assert doubts(folders) == []
