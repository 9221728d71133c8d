"""Folders of a study that are links: nothing is written to where they lead."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trainlarge.config.tracking import WandbConfig
from trainlarge.errors import UserError
from trainlarge.machine.precision import Precision
from trainlarge.machine.probe import StepTiming, kept
from trainlarge.machine.step_time import Round
from trainlarge.results.report.page import write_report
from trainlarge.sweep.store import Study
from trainlarge.tracking.mirror import mirror_study


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["report", "wandb"])
def test_a_report_and_a_mirror_are_not_written_through_a_link(
    made_study: Study, tmp_path: Path, elsewhere: Path, name: str
) -> None:
    study = Study(Path(shutil.copytree(made_study.path, tmp_path / "made", ignore=shutil.ignore_patterns("report"))))
    (study.path / name).symlink_to(elsewhere)
    write = write_report if name == "report" else lambda study: mirror_study(study, WandbConfig())
    with pytest.raises(UserError, match=f"{name}=a link to {elsewhere} is not valid: must be a plain folder"):
        write(study)
    assert not list(elsewhere.iterdir())


def test_measurements_are_not_written_through_a_link(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "probes").symlink_to(elsewhere)
    some = Round.of_before(0.1, 10)
    with pytest.raises(UserError, match="probes=a link"):
        StepTiming(tmp_path / "probes", {"shape": 1}).add(some)
    with pytest.raises(UserError, match="probes=a link"):
        kept(tmp_path / "probes" / "precision", {"device": 1}, Precision, lambda: Precision("fp32"))
    assert not list(elsewhere.iterdir())
