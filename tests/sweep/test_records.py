"""Records: one dataclass field per key, and every column of the frames comes from one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

import made
from trainlarge.config.group import Plain
from trainlarge.results.columns import CELLS, COMPRESSION, CURVES, Column, recorded
from trainlarge.results.scores import all_scores
from trainlarge.sweep.recorded import Recorded, later, meanings
from trainlarge.sweep.records import RECORDS, CompressRecord, CurveRow, TrainRecord


def described(kind: type[Recorded]) -> set[str]:
    """The keys of a record, dotted, that its fields describe."""
    keys = {item.name for item in fields(kind) if item.name not in ("scores", "more")} | set(all_scores())
    keys |= {f"{key}.{name}" for key in {"selection", "baseline", "dense_scores"} & keys for name in all_scores()}
    keys |= {f"changes.{name}.{end}" for name in all_scores() for end in ("value", "low", "high") if "changes" in keys}
    for name, group in getattr(kind, "groups", {}).items():
        keys |= {f"{name}.{item.name}" for item in fields(group) if item.name != "more"}
    return keys


@pytest.mark.parametrize(("columns", "kind"), [(CELLS, TrainRecord), (CURVES, CurveRow), (COMPRESSION, CompressRecord)])
def test_every_column_of_a_record_has_its_field(columns: dict[str, Column], kind: type[Recorded]) -> None:
    sources = {column.source for column in columns.values() if column.source}
    taken_from_cells = {column.source for column in CELLS.values()} if kind is CurveRow else set[str]()
    left = {source for source in sources if not source.startswith("config.")} - taken_from_cells
    assert left <= described(kind)


def test_every_meaning_becomes_a_column() -> None:
    tables = {TrainRecord: CELLS, CompressRecord: COMPRESSION, CurveRow: CURVES}
    for kind, table in tables.items():
        told = {known.column or name for name, known in meanings(kind).items()}
        assert told <= table.keys()
        assert all(known.unit and known.text for known in meanings(kind).values())


def test_a_field_is_all_that_a_new_column_needs() -> None:
    @dataclass(frozen=True, kw_only=True)
    class More(CurveRow):
        energy: float | None = later("J", "energy that training took")

    known = recorded(More)["energy"]
    assert (known.source, known.unit, known.description) == ("energy", "J", "energy that training took")
    assert math.isnan(known.missing)
    assert recorded(More).keys() - recorded(CurveRow).keys() == {"energy"}


def test_scores_are_keys_of_the_row_and_optional_keys_need_a_value() -> None:
    row = CurveRow(
        step=25, tokens=50, flops=10**20, executed_flops=None, train_seconds=1.0, model_seconds=1.0, wall_seconds=2.0,
        train_loss=None, scores={"loss": 2.0, "accuracy": 0.5}, lr=0.1, part="trunk",
    ).to_json()  # fmt: skip
    assert row["loss"] == 2.0 and row["accuracy"] == 0.5 and "scores" not in row
    assert row["executed_flops"] is None and row["flops"] == 10**20


def test_the_records_of_an_old_study_have_no_key_that_no_field_describes(tmp_path: Path) -> None:
    import shutil

    from trainlarge.sweep.store import Study

    shutil.unpack_archive(Path(__file__).parents[1] / "old" / "before_digests.zip", tmp_path)
    study = Study(tmp_path / "studies" / "old")
    for stage, kind in RECORDS.items():
        for folder in study.folders(stage):
            record = folder.record_data()
            assert set(record) - {"files"} <= described(kind)
            for group in kind.groups:
                assert {f"{group}.{name}" for name in record[group]} <= described(kind)


def test_keys_of_another_version_and_scores_survive_reading_and_writing() -> None:
    record = made.train_record(made.train_cell("study", (64, 1), "7.5 s"), (64, 1), made.curve((64, 1), 7.5))
    record |= {"flops": 1e20, "energy": {"unit": "J", "value": [1, 2]}, "score_of_tomorrow": 0.25, "files": {"a": "b"}}
    record["environment"] = {**record["environment"], "cooling": "water"}
    read = TrainRecord.from_json(record)
    written = read.to_json()
    assert {name: written[name] for name in record.keys() - {"data", "environment"}} == {
        name: value for name, value in record.items() if name not in ("data", "environment")
    }
    for group in ("data", "environment"):
        part = written[group]
        assert isinstance(part, dict) and {name: part[name] for name in record[group]} == record[group]
    assert read.scores == {"loss": record["loss"], "accuracy": record["accuracy"], "score_of_tomorrow": 0.25}
    assert TrainRecord.from_json(written) == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": "many"}, "step='many' is not valid: must be a whole number"),
        ({"environment": {"device": 1}}, "environment.device_name=None is not valid: must be there"),
        ({"data": []}, "data=[] is not valid: must be a mapping from keys to values"),
    ],
)
def test_a_foreign_value_is_named(changes: dict[str, Plain], message: str) -> None:
    record = made.train_record(made.train_cell("study", (64, 1), "7.5 s"), (64, 1), made.curve((64, 1), 7.5))
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainRecord.from_json({**record, **changes})
