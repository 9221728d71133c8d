"""A study with several tasks: its parts, and how finetuned cells stand beside those that they started from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import chained
import made
from chained import Finetuned
from trainlarge.errors import UserError
from trainlarge.results.frames import StudyFrames, load_study
from trainlarge.sweep.store import Study

TASKS = (Finetuned("sst2"), Finetuned("mnli", per_nat=0.12))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Study:
    recipes = ((0.0, 32), (0.0, 4))
    return chained.make_chain(tmp_path_factory.mktemp("chain") / "chain", TASKS, seeds=(0, 1), recipes=recipes)


@pytest.fixture(scope="module")
def loaded(chain: Study) -> StudyFrames:
    return load_study(chain)


def test_a_study_of_one_task_has_one_part(frames: StudyFrames) -> None:
    assert set(frames.cells["part"]) == set(frames.compression["part"]) == {"mlm"}
    assert frames.cells["chosen"].all() and set(frames.cells["checkpoint"]) == {""}
    assert frames.cells["parent_loss"].isna().all() and (frames.cells["total_flops"] == frames.cells["flops"]).all()


def test_parts_have_names_that_tell_them_apart(loaded: StudyFrames) -> None:
    assert loaded.cells["part"].value_counts().to_dict() == {
        "mlm": 24,
        "classification of mnli": 24,
        "classification of sst2": 24,
    }


def test_a_finetuned_cell_stands_beside_the_one_that_it_started_from(loaded: StudyFrames) -> None:
    cells = loaded.cells
    finetuned = cells[cells["checkpoint"].ne("")]
    joined = finetuned.merge(cells, left_on="checkpoint", right_on="cell", suffixes=("", "_of_parent"))
    assert len(joined) == len(finetuned) == 48
    for name in ("loss", "flops", "seed", "budget", "part"):
        assert (joined[f"parent_{name}"] == joined[f"{name}_of_parent"]).all(), name
    assert (joined["total_flops"] == joined["flops"] + joined["flops_of_parent"]).all()
    assert set(finetuned["series"]) == {"d64/L1", "d64/L2", "d128/L2"}


def test_training_of_a_compressed_model_counts_from_initial_weights_on(loaded: StudyFrames) -> None:
    rows = loaded.compression.merge(loaded.cells, left_on="parent", right_on="cell", suffixes=("", "_of_train"))
    assert len(rows) == len(loaded.compression) == 96
    assert (rows["total_flops"] == rows["total_flops_of_train"]).all()
    assert (rows["total_flops"] > rows["flops"]).all()


def test_cells_of_one_part_must_still_agree(tmp_path: Path) -> None:
    study = chained.make_chain(tmp_path / "some", seeds=(0,), recipes=())
    folder = next(folder for folder in study.folders("train") if folder.record_data()["config"]["checkpoint"])
    record = folder.record_data()
    record["data"]["evaluation_fingerprint"] = "another"
    folder.write_record_data(record)
    with pytest.raises(UserError, match="evaluation_fingerprint"):
        load_study(study)


def test_the_best_of_rates_and_epochs_by_selection_score_is_chosen(tmp_path: Path) -> None:
    study = Study(tmp_path / "some")
    parent = made.make_train_cell(study, (64, 1), 7.5)
    scores = {(1e-4, "1 epochs"): 0.7, (1e-4, "2 epochs"): 0.8, (3e-4, "1 epochs"): 0.75, (3e-4, "2 epochs"): None}
    for (lr, budget), score in scores.items():
        selection = {"loss": 0.5, "accuracy": score}
        # The best on validation is another one.
        chained.finetune(study, parent, Finetuned(), lr, budget, selection=selection, accuracy=0.9 - (score or 0) / 10)
    made.make_train_cell(study, (64, 2), 7.5)
    cells = load_study(study).cells
    best = cells[cells["checkpoint"].ne("") & cells["chosen"]]
    assert best[["lr", "budget"]].to_numpy().tolist() == [[1e-4, "2 epochs"]]
    assert cells.loc[cells["checkpoint"].eq(""), "chosen"].all()


def test_seeds_and_data_have_choices_of_their_own(tmp_path: Path) -> None:
    study = Study(tmp_path / "some")
    for seed in (0, 1):
        parent = made.make_train_cell(study, (64, 1), 7.5, seed)
        for task, lr in ((task, lr) for task in TASKS for lr in (1e-4, 3e-4)):
            chained.finetune(study, parent, task, lr, selection={"accuracy": 0.7 + 100 * lr})
    cells = load_study(study).cells
    best: pd.DataFrame = cells[cells["checkpoint"].ne("") & cells["chosen"]]
    assert len(best) == 4 and set(best["lr"]) == {3e-4}
