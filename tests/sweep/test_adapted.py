"""One override says where the data of a sweep is, and one how much larger its budgets are than those in its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainlarge.commands.hydra_entry import act_on_cells
from trainlarge.config.schema import StageConfig, TrainConfig
from trainlarge.errors import UserError
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.store import Study

SWEEP = {
    "study": "tiny",
    "data": {"name": "text", "files": ["prose/*.txt"], "validation_files": ["held.txt"], "vocab_size": 300},
    "sweep": {
        "data_folder": "data",
        "blocks": [
            {"budget": ["40 steps", "1 min"]},
            {"schedule": "fixed", "schedule.horizon": "3 epochs", "budget": "2 epochs"},
        ],
    },
}


@pytest.fixture
def file(tmp_path: Path, tiny_text: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep whose data lies in the folder ``data``, and again elsewhere."""
    for folder in ("data", "else/where"):
        (tmp_path / folder / "prose").mkdir(parents=True)
        (tmp_path / folder / "prose" / "a.txt").write_text(tiny_text.read_text())
        (tmp_path / folder / "held.txt").write_text("a small model\n\nis not large\n")
    path = tmp_path / "train.yaml"
    path.write_text("defaults:\n  - override /data: text\n" + yaml.safe_dump(SWEEP))
    monkeypatch.chdir(tmp_path)
    return path


def cells(file: Path, *overrides: str) -> list[TrainConfig]:
    arguments = ["-m", f"sweeps={file}", "tracking=none", "impl.device=cpu", *overrides]
    [configs] = act_on_cells("train", arguments, lambda _, configs: configs)
    return [as_train(config) for config in configs]


def as_train(config: StageConfig) -> TrainConfig:
    assert isinstance(config, TrainConfig)
    return config


def test_the_folder_of_the_data_is_no_part_of_a_cell(file: Path, tmp_path: Path) -> None:
    here, there = cells(file), cells(file, "sweep.data_folder=else/where")
    assert here[0].data.files == (str(tmp_path / "data/prose/*.txt"),)
    assert there[0].data.validation_files == (str(tmp_path / "else/where/held.txt"),)
    assert [cell.id for cell in make_cells("train", here)] == [cell.id for cell in make_cells("train", there)]
    absolute = cells(file, f"data.files=[{tmp_path}/data/prose/a.txt]", "data.validation_files=[]")
    assert absolute[0].data.files == (f"{tmp_path}/data/prose/a.txt",)


def test_a_factor_multiplies_every_budget_and_the_length_of_the_schedule(file: Path) -> None:
    plain, scaled = cells(file), cells(file, "sweep.budget_factor=2.5")
    assert [config.budget for config in plain] == ["40 steps", "1 min", "2 epochs"]
    assert [config.budget for config in scaled] == ["100 steps", "150 s", "5 epochs"]
    assert (plain[2].schedule.horizon, scaled[2].schedule.horizon) == ("3 epochs", "7.5 epochs")
    left = cells(file, "sweep.budget_factor=2.5", """sweep.exclude=["budget == '100 steps'"]""")
    assert [config.budget for config in left] == ["150 s", "5 epochs"], "conditions see the multiplied budgets"
    written = cells(file, "budget=100 steps,150 s", """sweep.exclude=["schedule.name == 'fixed'"]""")
    ids = {cell.id for cell in make_cells("train", written)}
    assert {cell.id for cell in make_cells("train", scaled[:2])} <= ids, "the cell with the budget written out"


WRONG = [
    ("sweep.data_folder=nowhere", r"^sweep\.data_folder=nowhere is not valid: must be a folder that exists"),
    ("sweep.budget_factor=0", r"^sweep\.budget_factor=0\S* is not valid: must be a number above 0 and at most 1e\+09"),
    ("sweep.budget_factor=-1", r"^sweep\.budget_factor=-1\S* is not valid: must be a number above 0"),
    ("sweep.budget_factor=1e99", r"^sweep\.budget_factor=1e\+99 is not valid: must be a number above 0"),
]


@pytest.mark.parametrize(("override", "said"), WRONG, ids=[override for override, _ in WRONG])
def test_a_wrong_value_is_refused(override: str, said: str, file: Path) -> None:
    with pytest.raises(UserError, match=said):
        cells(file, override)


def test_the_compress_stage_has_no_budgets(study: Study) -> None:
    with pytest.raises(UserError, match=r"^sweep\.budget_factor=2\S* is not valid: must be 1 in the compress stage"):
        act_on_cells("compress", ["-m", "checkpoint=0123456789ab", "sweep.budget_factor=2"], lambda _, configs: configs)
