"""Another sweeper than ours (Hydra's own here) whose trials run as cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.sweep.store import Study

pytestmark = pytest.mark.usefixtures("unforeseen")

BASIC = ["hydra/sweeper=basic", "seed=0,1"]


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's own sweeper writes a file there."""
    monkeypatch.chdir(tmp_path)


def test_a_plan_runs_nothing(study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "train", *tiny_overrides, *BASIC]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("error: hydra/sweeper=basic is not valid: must be trainlarge")
    assert not study.path.exists()


def test_its_cells_run_and_are_mirrored(study: Study, tiny_overrides: list[str]) -> None:
    fixed = [text for text in tiny_overrides if text != "tracking=none"]
    assert main(["train", "-m", *fixed, "tracking=wandb", *BASIC]) == 0
    assert [folder.is_done() for folder in study.folders("train")] == [True, True]
    assert len(list(study.path.glob("wandb/offline-run-*"))) == 2


def test_a_failed_cell_is_named_and_status_1(
    study: Study, tiny_overrides: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", *tiny_overrides, *BASIC, "data.vocab_size=100000"]) == 1
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    names = [folder.id for folder in study.folders("train")]
    assert len(names) == 2 and all(f"failed {name}: " in printed.out for name in names)
