"""Whatever a key is set to, a command does it or refuses it in one line that names the key, in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

import made
import nasty
from trainlarge.launch import engine
from trainlarge.launch.engine import Outcome

LINES = {1: 140, 2: 420, 3: 420}
"""Seed -> command lines: for each key of both stages one, or for a third of them."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Stage -> overrides with which it has a cell: to compress, one of a study that a train cell is done in."""
    study = made.make_study(tmp_path_factory.mktemp("studies") / "fuzz", budgets=(7.5,), compressed=False)
    trained = next(iter(study.folders("train"))).id
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAINLARGE_STUDIES", str(study.path.parent))
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        # Nothing is read of the weights before a job starts, but that they are there.
        for folder in study.folders("train"):
            folder.checkpoint.mkdir()
            (folder.checkpoint / "model.safetensors").touch()
        # Everything up to the first process that would compute.
        patch.setattr(engine, "run_plan", lambda study, plan, launcher, console: Outcome(study, plan, ()))
        yield {"train": (), "compress": ("study=fuzz", f"checkpoint={trained}")}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))])
def test_a_strange_value_is_done_or_refused_in_one_line(
    seed: int,
    stages: dict[str, tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = list(nasty.command_lines(seed, LINES[seed], stages))
    wrong = {" ".join(line.arguments): text for line in given if (text := nasty.complaint(line, capfd))}
    assert not wrong, "\n".join(f"{line[:300]}\n    {text[:600]}" for line, text in wrong.items())
