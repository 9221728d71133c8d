from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import made
import wandb_file
from trainlarge.cli import main
from trainlarge.commands import sync
from trainlarge.config.tracking import CsvConfig, TrackingConfig, WandbConfig
from trainlarge.errors import UserError
from trainlarge.results.frames import load_study
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import Study
from trainlarge.tracking.mirror import mirror_study, recipe_columns
from trainlarge.tracking.wandb import AXES, OWNER, owner_of

TRACKING = WandbConfig()
SCORES = ["loss", "accuracy"]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of three checkpoints that was mirrored once."""
    study = made.make_study(tmp_path_factory.mktemp("mirrored") / "some", budgets=(60.0,))
    assert mirror_study(study, TRACKING) == 6
    return study


def run_file(study: Study, run_id: str) -> Path:
    """The one file of a run."""
    [path] = study.path.glob(f"wandb/offline-run-*/run-{run_id}-{owner_of(study)}.wandb")
    return path


def history(study: Study, run_id: str) -> list[dict[str, Any]]:
    found = (
        record
        for record in wandb_file.records(run_file(study, run_id))
        if record.WhichOneof("record_type") == "history"
    )
    return [wandb_file.items(record.history) for record in found]


def summary(study: Study, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in wandb_file.records(run_file(study, run_id)):
        if record.WhichOneof("record_type") == "summary":
            found |= wandb_file.items(record.summary)
    return found


def test_every_number_of_the_curve_is_there(mirrored: Study) -> None:
    for folder in mirrored.folders("train"):
        rows = [
            {key: value for key, value in row.items() if not key.startswith("_")}
            for row in history(mirrored, folder.id)
        ]
        assert rows == folder.metrics()
        assert {row["part"] for row in rows} == {"trunk", "branch"}


def test_the_summary_is_the_record(mirrored: Study) -> None:
    for folder in mirrored.folders("train"):
        told, record = summary(mirrored, folder.id), folder.record_data()
        for key in ("loss", "accuracy", "step", "flops", "train_seconds", "model_seconds", "parameters"):
            assert told[key] == record[key]


def test_the_run_is_named_after_the_cell(mirrored: Study) -> None:
    folder = next(mirrored.folders("train"))
    (run,) = [
        record.run
        for record in wandb_file.records(run_file(mirrored, folder.id))
        if record.WhichOneof("record_type") == "run"
    ]
    config = folder.cell().as_train
    run_id = f"{folder.id}-{owner_of(mirrored)}"
    assert (run.run_id, run.run_group, run.project) == (run_id, "some", "trainlarge")
    assert run.display_name == f"d{config.arch.width}/L{config.arch.depth}, 60 s, seed 0"
    assert wandb_file.items(run.config)["arch"] == config.arch.plain


def test_clocks_are_axes(mirrored: Study) -> None:
    folder = next(mirrored.folders("train"))
    metrics = [
        record.metric
        for record in wandb_file.records(run_file(mirrored, folder.id))
        if record.WhichOneof("record_type") == "metric"
    ]
    assert set(AXES) <= {metric.name for metric in metrics}
    assert {metric.name: metric.step_metric for metric in metrics}["loss"] == "model_seconds"


def test_the_columns_of_the_table_are_said_at_the_fields_of_the_record() -> None:
    sizes = ["sparsity", "bits", "nonzero_parameters", "ideal_bytes", "file_bytes"]
    assert recipe_columns(SCORES) == ["recipe", *SCORES, "perplexity", "loss_increase", *sizes, "cell"]


def test_every_recipe_is_in_the_table_and_on_the_curve(mirrored: Study) -> None:
    frame = load_study(mirrored).compression
    for folder in mirrored.folders("train"):
        run_id = f"{folder.id}-compress"
        own = frame[frame["parent"] == folder.id].sort_values(["file_bytes", "cell"])
        (path,) = run_file(mirrored, run_id).parent.glob("files/media/table/*.table.json")
        table = json.loads(path.read_text())
        assert table["columns"] == recipe_columns(SCORES)
        assert [row[0] for row in table["data"]] == list(own["recipe"])
        assert [row[recipe_columns(SCORES).index("loss")] for row in table["data"]] == pytest.approx(list(own["loss"]))
        curve = [row for row in history(mirrored, run_id) if "file_bytes" in row]
        assert [row["file_bytes"] for row in curve] == list(own["file_bytes"])
        assert [row["loss"] for row in curve] == pytest.approx(list(own["loss"]))


def test_a_run_is_written_once_and_again_when_its_record_changes(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    assert mirror_study(study, TRACKING) == 3
    assert mirror_study(study, TRACKING) == 0
    folder = next(study.folders("train"))
    folder.write_record_data({**folder.record_data(), "loss": 1.25})
    assert mirror_study(study, TRACKING) == 1
    assert summary(study, folder.id)["loss"] == 1.25, "and the older run is gone"
    assert len(list(study.path.glob("wandb/offline-run-*"))) == 3
    (folder.path / "mirror.json").write_text("{")
    assert mirror_study(study, TRACKING) == 1


def test_a_mirror_from_before_there_were_several_is_not_written_again(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    mirror_study(study, TRACKING)
    for marker in study.path.glob("train/*/mirror.json"):
        entries = json.loads(marker.read_text())
        marker.write_text(json.dumps({key.removeprefix("wandb "): entry for key, entry in entries.items()}))
    assert mirror_study(study, TRACKING) == 0


def test_two_studies_of_one_name_and_cell_have_runs_of_their_own(tmp_path: Path) -> None:
    studies = [made.make_study(tmp_path / user / "some", budgets=(7.5,), compressed=False) for user in ("a", "b")]
    for study in studies:
        mirror_study(study, TRACKING)
    first, second = ({path.name for path in study.path.glob("wandb/offline-run-*/run-*.wandb")} for study in studies)
    assert len(first) == len(second) == 3 and first.isdisjoint(second)
    moved = Study(studies[0].path.rename(tmp_path / "elsewhere"))
    assert owner_of(moved) in first.pop(), "it stays with the folder"


def test_a_study_that_was_mirrored_before_keeps_the_ids_of_its_runs(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    cell = next(study.folders("train")).id
    (study.path / f"wandb/offline-run-20260101_000000-{cell}").mkdir(parents=True)
    (study.path / f"wandb/offline-run-20260101_000000-{cell}-compress").mkdir()
    mirror_study(study, TRACKING)
    paths = list(study.path.glob(f"wandb/offline-run-*-{cell}/run-{cell}.wandb"))
    assert owner_of(study) == "" and len(paths) == 1
    assert len(list(study.path.glob("wandb/offline-run-*"))) == 3 + 1, "runs of other ids stay"


@pytest.mark.parametrize("text", ["", "[1]", '{"owner": "../../x"}', '{"owner": 3}'])
def test_a_damaged_owner_is_made_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    mirror_study(study, TRACKING)
    (study.path / OWNER).write_text(text)
    folder = next(study.folders("train"))
    folder.write_record_data({**folder.record_data(), "loss": 1.25})
    assert mirror_study(study, TRACKING) == 1 and "wandb-owner.json is damaged" in caplog.text
    assert summary(study, folder.id)["loss"] == 1.25
    assert len(list(study.path.glob("wandb/offline-run-*"))) == 3, "also the run of the old word gave way"


def test_a_value_of_the_environment_that_the_client_cannot_read_is_one_line(tmp_path: Path) -> None:
    """In a process of its own: the client reads the environment once."""
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    command = [sys.executable, "-m", "trainlarge.cli", "sync", str(study.name)]
    environment = {**os.environ, "WANDB_SILENT": "banana", "TRAINLARGE_STUDIES": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    [line] = done.stderr.strip().splitlines()
    assert done.returncode == 2 and "tracking.mode=offline" in line and "'banana'" in line


def test_watching_ends_when_all_cells_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path))
    last = next(study.folders("train"))
    last.write_status(Status(State.RUNNING))
    monkeypatch.setattr(sync.time, "sleep", lambda seconds: last.write_status(Status(State.DONE)))
    assert main(["sync", "some", "tracking=csv", "--watch"]) == 0
    assert capsys.readouterr().out.splitlines() == ["2 runs written to CSV files", "1 runs written to CSV files"]


def test_csv_files_have_the_same_rows_and_are_a_mirror_of_their_own(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,))
    assert mirror_study(study, CsvConfig()) == 6 and mirror_study(study, TRACKING) == 6
    assert mirror_study(study, CsvConfig()) == 0 and mirror_study(study, TRACKING) == 0
    for folder in study.folders("train"):
        with (study.path / "csv" / f"{folder.id}.csv").open(newline="") as file:
            read = list(csv.DictReader(file))
        rows = folder.metrics()
        assert [{key: value for key, value in row.items() if value} for row in read] == [
            {key: str(value) for key, value in row.items() if value is not None} for row in rows
        ]
        text = (study.path / "csv" / f"{folder.id}-compress.csv").read_text()
        assert text.startswith("file_bytes,loss,accuracy,loss_increase\n")


def test_mirroring_takes_little_time(made_study: Study, tmp_path: Path) -> None:
    study = Study(shutil.copytree(made_study.path, tmp_path / "some", ignore=shutil.ignore_patterns("compress")))
    start = time.perf_counter()
    assert mirror_study(study, TRACKING) == 12
    assert time.perf_counter() - start < 10


def test_it_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mirror_study(made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False), TRACKING)
    assert capfd.readouterr() == ("", "")


def test_none_writes_nothing_and_a_study_without_results_has_no_runs(tmp_path: Path) -> None:
    study = made.make_study(tmp_path / "some", budgets=(7.5,), compressed=False)
    assert mirror_study(study, TrackingConfig("none")) == 0
    assert not (study.path / "wandb").exists()
    assert mirror_study(Study(tmp_path / "nothing"), TRACKING) == 0


@pytest.mark.parametrize(("key", "allowed"), [("name", "none, wandb, csv"), ("mode", "offline, online")])
def test_an_unknown_choice_is_refused(key: str, allowed: str) -> None:
    with pytest.raises(UserError, match=f"tracking.{key}=other is not valid: must be one of {allowed}"):
        TrackingConfig.kind({"name": "wandb", key: "other"})(**{key: "other"})
