from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import made
from trainlarge.errors import UserError
from trainlarge.results.columns import COLUMNS
from trainlarge.results.frames import StudyFrames, load_study
from trainlarge.sweep.sealed import write_sealed
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study


def test_every_column_is_documented_and_every_documented_column_is_there(frames: StudyFrames) -> None:
    for name, frame in frames.tables().items():
        assert list(frame.columns) == list(COLUMNS[name])
        assert all(unit and description for unit, description in COLUMNS[name].values())


def test_a_row_says_what_the_record_says(frames: StudyFrames, made_study: Study) -> None:
    row = frames.cells.iloc[5]
    record = made_study.folder("train", row["cell"]).record_data()
    for name in ("loss", "step", "flops", "train_seconds", "model_seconds", "parameters"):
        assert row[name] == record[name]
    assert row["width"] == record["config"]["arch"]["width"]
    assert row["threads"] == record["environment"]["threads"]
    assert f"{row['budget_value']:g} {row['budget_unit']}" == row["budget"] == record["config"]["budget"]
    assert row["shape"] == row["series"] == f"d{row['width']}/L{row['depth']}"


def test_the_gap_is_the_loss_on_training_rows_less_that_on_held_out_ones(frames: StudyFrames) -> None:
    assert frames.cells["train_validation_gap"].round(6).eq(-0.05).all()


def test_a_record_older_than_a_key_means_what_the_key_was_added_for(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    folder = next(study.folders("train"))
    record = folder.record_data()
    del record["config"]["data"]["fraction"], record["train_set_loss"]
    folder.write_record_data(record)
    cells = load_study(study).cells
    assert set(cells["fraction"]) == {1.0} and set(cells["series"]) == {"d64/L1", "d64/L2", "d128/L2"}
    assert cells["train_validation_gap"].isna().sum() == 1


def test_executed_flops_stand_beside_those_of_the_architecture(tmp_path: Path) -> None:
    """Records and curves of before the key existed do not know them."""
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    folder = next(study.folders("train"))
    folder.write_record_data({**folder.record_data(), "executed_flops": 123})
    frames = load_study(study)
    assert frames.cells.set_index("cell")["executed_flops"].dropna().to_dict() == {folder.id: 123.0}
    assert frames.curves["executed_flops"].isna().all() and frames.curves["flops"].notna().all()


def test_curves_hold_every_metrics_row(frames: StudyFrames, made_study: Study) -> None:
    for folder in made_study.folders("train"):
        rows = folder.metrics()
        own = frames.curves[frames.curves["cell"] == folder.id]
        assert own[list(rows[0])].to_dict("records") == rows


def test_compression_takes_over_its_train_cell(frames: StudyFrames) -> None:
    assert len(frames.compression) == 12 * 24
    joined = frames.compression.merge(frames.cells, left_on="parent", right_on="cell", suffixes=("", "_of_train"))
    assert len(joined) == len(frames.compression)
    for name in ("width", "depth", "budget", "model_seconds", "flops", "seed", "series"):
        assert (joined[name] == joined[f"{name}_of_train"]).all()
    assert (joined["dense_loss"] == joined["loss_of_train"]).all()


def test_a_study_without_compression_has_the_columns_all_the_same(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    frame = load_study(study).compression
    assert frame.empty
    assert list(frame.columns) == list(COLUMNS["compression"])


def test_only_finished_cells_are_read(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    folder = next(study.folders("train"))
    folder.write_status(Status(State.FAILED, error="out of memory"))
    assert folder.id not in set(load_study(study).cells["cell"])
    assert len(load_study(study).cells) == 2


def test_a_study_without_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"study=.*empty is not valid: must be a study with at least one finished train cell"
    ):
        load_study(tmp_path / "empty")
    with pytest.raises(UserError, match="study=nowhere"):
        load_study("nowhere")


def test_name_folder_and_study_are_the_same(made_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(made_study.path.parent))
    monkeypatch.chdir(made_study.path / "train")
    for way in (
        made_study.name,
        made_study.path,
        str(made_study.path),
        f"{made_study.path.parent.name}/{made_study.name}",
    ):
        pd.testing.assert_frame_equal(load_study(way).cells, load_study(made_study).cells)


def test_a_damaged_record_is_one_line_or_left_out(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    folder = next(study.folders("train"))
    folder.record_path.write_text(folder.record_path.read_text()[:100])
    before = folder.record_path.read_text()
    with pytest.raises(UserError, match=r"record\.json"):
        load_study(study)
    with pytest.warns(UserWarning, match=folder.id):
        assert len(load_study(study, strict=False).cells) == 2
    assert folder.record_path.read_text() == before


def test_what_a_study_varies_is_named(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    cell = made.train_cell("some", (64, 2), "7.5 s")
    config = replace(cell.as_train, optim=replace(cell.as_train.optim, batch=4096))
    made.finish_train_cell(study, made.Cell("train", config), (64, 2), 7.5)
    cells = load_study(study).cells
    usual = {f"{shape}, optim.batch=2048" for shape in ("d64/L1", "d64/L2", "d128/L2")}
    assert set(cells["series"]) == usual | {"d64/L2, optim.batch=4096"}
    assert set(cells["variant"]) == {"optim.batch=2048", "optim.batch=4096"}
    assert set(cells["shape"]) == {"d64/L1", "d64/L2", "d128/L2"}


def test_losses_on_different_evaluation_sets_are_refused(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    record = {"data": {"fingerprint": "x", "evaluation_fingerprint": "another"}}
    made.make_train_cell(study, (64, 1), 15.0, **record)
    with pytest.raises(UserError, match=r"evaluation_fingerprint \(another in 1 cells, cab0042bf0e5c847 in 3\)"):
        load_study(study)
    assert len(load_study(study, allow_mixed=True).cells) == 4


def study_of(path: Path, compressed: int) -> Study:
    """A study with copies of a few compress cells."""
    study = made.make_study(path, budgets=(7.5,))
    folders = list(study.folders("compress"))
    for number in range(compressed):
        source, target = folders[number % len(folders)].path, study.path / "compress" / f"{number:012x}"
        target.mkdir()
        record = json.loads((source / "record.json").read_text().replace(source.name, target.name))
        write_sealed(target / "record.json", record, durable=False)
        (target / "status.json").write_bytes((source / "status.json").read_bytes())
    return study


def seconds_to_load(study: Study, at_least: int) -> float:
    """Time of this process alone: other tests run beside it."""
    start = time.process_time()
    assert len(load_study(study).compression) > at_least
    return time.process_time() - start


@pytest.mark.long
def test_a_record_among_ten_thousand_costs_what_it_costs_among_a_thousand(tmp_path: Path) -> None:
    some, many = study_of(tmp_path / "some", 1000), study_of(tmp_path / "many", 10_000)
    before = seconds_to_load(some, 1000)
    large = seconds_to_load(many, 10_000)
    small = max(before, seconds_to_load(some, 1000))
    assert large < 2 * 10 * small, "benchmarks/sweep_overhead.py measures the seconds on a quiet machine"


def test_budgets_are_written_as_people_read_them(frames: StudyFrames) -> None:
    """Each budget has words of its own, so cells are grouped as before; a Hugging Face folder has no budget."""
    changed = replace(
        frames,
        cells=frames.cells.assign(budget="150000000000 FLOPs"),
        compression=frames.compression.assign(budget=[None, *["1800 s"] * (len(frames.compression) - 1)]),
    )
    words = changed.with_budgets_in_words()
    assert set(words.cells["budget"]) == {"150 GFLOPs"}
    assert words.compression["budget"].isna().sum() == 1 and set(words.compression["budget"].dropna()) == {"30 min"}
    assert set(changed.cells["budget"]) == {"150000000000 FLOPs"}, "the frames of users stay as they are"
