from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import made
from trainlarge.config.data import DataConfig
from trainlarge.config.impl import ImplConfig
from trainlarge.config.plain import to_plain
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep import cell, files, records
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study

DATA = DataConfig("text", files=("Größe: ü.txt",), encoding="latin-1")
CELL = Cell("train", TrainConfig(study="s", seed=3, budget="5 steps", data=DATA))


@pytest.fixture
def folder(tmp_path: Path) -> CellFolder:
    folder = Study(tmp_path / "s").folder("train", CELL.id)
    folder.freeze(CELL)
    return folder


@pytest.mark.parametrize("name", ["../../x", "..", "", "0" * 12 + "/..", "0" * 11 + "g", "/tmp"])
def test_no_name_leads_out_of_a_study(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cell="):
        Study(tmp_path).folder("train", name)
    with pytest.raises(UserError, match="study="):
        Study.named(f"{name}/x", tmp_path)


def test_a_frozen_configuration_comes_back_equal(folder: CellFolder) -> None:
    assert folder.cell().config == CELL.config and folder.cell() == CELL
    assert folder.status().state is State.QUEUED


@pytest.mark.parametrize("edit", [("seed: 3", "seed: 4"), ("seed: 3", "seed: ["), ("seed: 3", "")])
def test_an_edited_frozen_configuration_is_refused(folder: CellFolder, edit: tuple[str, str]) -> None:
    path = folder.path / "config.yaml"
    path.write_text(path.read_text().replace(*edit))
    with pytest.raises(UserError, match=r"config\.yaml"):
        folder.cell()


def test_a_cell_and_a_record_of_an_older_schema_are_named(folder: CellFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_record_data({"cell": CELL.id, "schema": 1})
    monkeypatch.setitem(cell.SCHEMA_VERSIONS, "train", 3)
    monkeypatch.setitem(records.RECORD_SCHEMAS, "train", 2)
    with pytest.raises(UserError, match=r"config\.yaml=schema 1 is not valid: must be schema 3"):
        folder.cell()
    with pytest.raises(UserError, match=r"record\.json=schema 1 is not valid: must be schema 2"):
        folder.record_data()


def test_freezing_again_takes_over_only_what_cannot_change_the_result_of_an_unfinished_cell(folder: CellFolder) -> None:
    other = Cell("train", replace(CELL.config, impl=ImplConfig(precision="fp32")))
    assert other == CELL
    folder.freeze(other)
    assert folder.cell().config.impl == other.config.impl
    folder.write_record_data(made.bare_record(CELL.id))
    folder.write_status(Status(State.DONE))
    folder.freeze(CELL)
    assert folder.cell().config.impl == other.config.impl


def test_states_of_a_cell_folder(folder: CellFolder) -> None:
    assert folder.path.name == CELL.id and not folder.is_done()
    folder.write_status(Status(State.DONE))
    assert not folder.is_done(), "done without a record is not done"
    folder.write_record_data(made.bare_record(CELL.id, loss=1.0))
    assert folder.is_done() and folder.record_data()["loss"] == 1.0
    assert Study(folder.path.parents[1]).folder("train", "0" * 12).status().state is State.MISSING


@pytest.mark.parametrize("text", ["", "{", "[]", '{"loss": 1}', '{"cell": "000000000000"}'])
def test_a_damaged_record_is_named_and_left_alone(folder: CellFolder, text: str) -> None:
    folder.record_path.write_text(text)
    with pytest.raises(
        UserError, match=rf"record\.json=damaged is not valid: .*again: trainlarge redo {CELL.id} --study s$"
    ):
        folder.record_data()
    assert folder.record_path.read_text() == text


@pytest.mark.parametrize("name", ["a/b", "", "..", "-x", "a b", "/tmp/x"])
def test_a_study_needs_a_plain_folder_name(name: str) -> None:
    with pytest.raises(UserError, match=r"^study="):
        Study.named(name)


def test_cells_are_found_by_the_start_of_their_id(folder: CellFolder) -> None:
    study = Study(folder.path.parents[1])
    assert study.find(CELL.id[:5]) == folder
    with pytest.raises(UserError, match="cell=zzz"):
        study.find("zzz")


def test_what_a_record_rests_on_is_flushed_before_it_and_a_queued_cell_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(
        files.os, "fsync", lambda descriptor: flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
    )
    folder = Study(tmp_path / "s").folder("train", CELL.id)
    folder.freeze(CELL)
    folder.write_status(Status(State.RUNNING))
    assert not flushed
    folder.write_record_data(made.bare_record(CELL.id))
    folder.write_status(Status(State.DONE))
    kinds = [name.split(".")[1] if name.startswith(".") else name for name in flushed]
    assert kinds == ["config.yaml", "record", "status"]


def test_freezing_writes_what_one_call_of_the_yaml_library_would(folder: CellFolder) -> None:
    text = (folder.path / "config.yaml").read_text(encoding="utf-8")
    whole = yaml.safe_dump(to_plain(CELL.config), sort_keys=False, default_flow_style=False, allow_unicode=True)
    assert text == f"# train cell {CELL.id}: frozen, never edited\n{whole}"


def test_a_cell_that_is_older_than_a_key_comes_back_with_what_the_key_meant(tmp_path: Path) -> None:
    folder = Study(tmp_path / "old").folder("train", CELL.id)
    folder.freeze(CELL)
    path = folder.path / "config.yaml"
    path.write_text(path.read_text().replace("clock: modelled\n", "").replace("  fraction: 1.0\n", ""))
    assert "clock" not in path.read_text() and "fraction" not in path.read_text()
    assert folder.cell().config == CELL.config and folder.cell() == CELL


def test_a_configuration_that_a_crash_emptied_is_frozen_again(folder: CellFolder) -> None:
    (folder.path / "config.yaml").write_bytes(b"")
    folder.freeze(CELL)
    assert folder.cell().config == CELL.config
