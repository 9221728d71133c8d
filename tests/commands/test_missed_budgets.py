"""A chain whose pretraining got too few steps for its seconds: it is made good before anything starts from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_clock import BUSY, QUIET, take_fake_clock
from trainlarge.cli import main
from trainlarge.commands.run import TRIES
from trainlarge.sweep.step_times import budgets_missed
from trainlarge.sweep.store import CellFolder, Study

COMMON: dict[str, Any] = {
    "study": "tiny",
    "defaults": [{"override /data": "text"}],
    "impl": {"device": "cpu", "precision": "fp32"},
    "optim": {"batch": 256},
    "schedule": {"warmup_steps": 4},
    "task": {"evaluation_rows": 32},
    "tracking": {"name": "none"},
}
COMMAND = ["run", "busy", "launcher=inline"]


@pytest.fixture
def chain(tmp_path: Path, tiny_text: Path, study: Study, inline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretraining by seconds, further training by steps, compression with recovery; without the report."""
    monkeypatch.setattr("trainlarge.commands.run.print_report", lambda _study: None)
    data = {"files": [str(tiny_text)], "sequence_length": 16}
    pretrain = {"blocks": [{"arch.width": 16, "arch.depth": 1, "budget": ["5 s", "8 s"]}]}
    tune = {"where": "budget == '8 s'", "blocks": [{"checkpoint": "every", "budget": "6 steps"}]}
    recovery = {"checkpoint": "every", "prune.sparsity": 0.5, "recover": "retrain", "recover.budget": "4 steps"}
    files = {
        "1_train_pretrain": {**COMMON, "data": {**data, "vocab_size": 300}, "sweep": pretrain},
        "2_train_tune": {**COMMON, "data": data, "sweep": tune},
        "3_compress": {"study": "tiny", "impl": {"device": "cpu"}, "tracking": {"name": "none"},
                       "sweep": {"where": "checkpoint != None", "blocks": [recovery]}},
    }  # fmt: skip
    folder = tmp_path / "sweeps" / "busy"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def cells(study: Study) -> tuple[CellFolder, CellFolder, CellFolder]:
    """What was pretrained, what started from that, and what was compressed."""
    trained, [compressed] = list(study.folders("train")), study.folders("compress")
    [first] = [folder for folder in trained if folder.cell().as_train.budget == "8 s"]
    [tuned] = [folder for folder in trained if folder.cell().as_train.checkpoint]
    return first, tuned, compressed


def test_a_missed_budget_is_made_good_before_anything_starts_from_it(
    chain: None, study: Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = take_fake_clock(monkeypatch)
    clock.training = lambda step: BUSY if step <= 58 else QUIET
    assert main(COMMAND) == 0
    out = capfd.readouterr().out
    assert out.count("2 cells of 1_train_pretrain trained on now: try 1 of 3") == 1 == out.count("trained on now")
    first, tuned, compressed = cells(study)
    assert first.train_record().step == 8 / QUIET and not budgets_missed(study)
    assert tuned.train_record().checkpoint_weights == first.weights_digest()
    assert compressed.compress_record().checkpoint_weights == tuned.weights_digest()
    assert tuned.status().attempts == compressed.status().attempts == 1, "nothing was made of the short training"


def test_what_comes_next_waits_where_budgets_stay_missed(
    chain: None, study: Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    take_fake_clock(monkeypatch).probe = QUIET
    monkeypatch.setattr(
        "trainlarge.launch.engine.budgets_missed",
        lambda study: {folder.id: 2.0 for folder in study.folders("train")},
    )
    assert main(COMMAND) == 1
    out = capfd.readouterr().out
    assert out.count("trained on now") == TRIES
    assert "not run: what comes after 1_train_pretrain: the machine is too busy for budgets in seconds" in out
    assert len(list(study.folders("train"))) == 2 and not list(study.folders("compress"))
