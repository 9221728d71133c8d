"""Budgets on the real clock: they end within a step, also after a restart, and the decay ends with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainlarge.config.budget import parse_budget
from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.results.frames import load_study
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.step import step_of
from trainlarge.training.cells import STAGE
from trainlarge.training.run_length import make_run_length
from trainlarge.training.schedule import Branch
from trainlarge.training.train_run import TrainRun
from trainlarge.training.trunk import Trunk
from trainlarge.training.trunk_folder import branch_part

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]
REAL = ("clock=real", "impl.threads=1")


class Stopped(Exception):
    """Stands for a process that dies at a certain step."""


@pytest.fixture
def step_ends(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Part of the run and milliseconds on the training clock at the end of each step that is run."""
    ends: list[tuple[str, int]] = []
    train, advance = Trunk._train, TrainRun._advance

    def begun(trunk: Trunk, part: str, stop: int, branch: Branch) -> None:
        def noted(*arguments: Any) -> None:
            advance(trunk.run, *arguments)
            ends.append((part, trunk.run.position))

        monkeypatch.setattr(trunk.run, "_advance", noted)
        train(trunk, part, stop, branch)

    monkeypatch.setattr(Trunk, "_train", begun)
    return ends


def test_on_the_real_clock_the_decay_follows_the_seconds(tiny: Tiny, tmp_path: Path) -> None:
    config = STAGE.resolve(tiny(*REAL, "budget=100 s"))
    length = make_run_length(config, step_of(config), 0.01, epoch_rows=100)
    total = length.total(parse_budget("100 s"), CellFolder(str(tmp_path)))
    assert total == 100_000 and length.schedule.branch_start(total) == 80_000
    assert length.rate(1, 70_000, None) == 0.5, "the warm-up of four steps is counted in steps"
    assert length.rate(50, 70_000, None) == 1
    assert length.rate(900, 85_000, total) == pytest.approx(1 - math.sqrt(0.25))
    assert length.rate(950, 100_300, total) == 0
    assert not list(tmp_path.iterdir())


def test_training_stops_within_a_step_of_the_budget(
    tiny: Tiny, run_here: Run, study: Study, step_ends: list[tuple[str, int]]
) -> None:
    short, long = run_here("train", [tiny(*REAL, f"budget={budget} s") for budget in (2, 4)])
    for folder, budget in ((short, 2000), (long, 4000)):
        record, rows = folder.record_data(), folder.metrics()
        end = record["train_seconds"]
        *before, last = [position for part, position in step_ends if part == branch_part(budget)]
        assert all(position < budget for position in before) and budget <= last <= 1000 * end
        assert len(before) + 1 == record["step"] - record["branch_step"]
        assert rows[-1]["train_seconds"] == end and rows[-1]["lr"] < 0.05 * record["config"]["optim"]["peak_lr"]
    cells = load_study(study).cells
    assert set(cells["clock"]) == {"real"}
    assert list(cells["disturbance"]) == pytest.approx(list(cells["train_seconds"] / cells["model_seconds"]))


def test_a_real_budget_survives_a_restart(
    tiny: Tiny, run_here: Run, step_ends: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(*REAL, "budget=2 s", "impl.save_seconds=0.05")
    check = RunningJob.check

    def die(job: RunningJob) -> None:
        check(job)
        if step_ends[-1][1] > 1700:
            raise Stopped

    monkeypatch.setattr(RunningJob, "check", die)
    with pytest.raises(Stopped):
        run_here("train", [config])
    monkeypatch.setattr(RunningJob, "check", check)
    first = len(step_ends)
    [folder] = run_here("train", [config])
    record = folder.record_data()
    assert record["resumed_at"] and step_ends[first][1] > 1000, "the clock went on from the saved state"
    assert step_ends[-2][1] < 2000 <= step_ends[-1][1] <= 1000 * record["train_seconds"]
    seconds = [row["train_seconds"] for row in folder.metrics()]
    assert seconds == sorted(seconds)


def test_every_schedule_has_a_meaning_on_the_real_clock(tiny: Tiny, run_here: Run) -> None:
    matched = tiny(*REAL, "budget=0.4 s", "schedule=matched")
    fixed = tiny(*REAL, "budget=0.4 s", "schedule=fixed", "schedule.horizon=0.8 s")
    rates = [run_here("train", [config])[0].metrics()[-1]["lr"] / 3e-3 for config in (matched, fixed)]
    scale = 8**0.5  # of the peak rate at width 16
    assert rates == pytest.approx([0.0, 0.5 * scale], abs=0.1)


def test_the_clock_is_part_of_what_a_cell_is(tiny: Tiny) -> None:
    real, modelled = (STAGE.resolve(tiny(f"clock={clock}", "budget=1 s")) for clock in ("real", "modelled"))
    assert STAGE.shared_work(real) != STAGE.shared_work(modelled)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["clock=wall"], "clock"),
        (["clock=real"], "clock"),
        (["clock=real", "budget=1e6 tokens"], "clock"),
        (["clock=real", "budget=5 s", "impl.devices=2"], "impl.devices"),
        (["clock=real", "budget=5 s", "schedule=fixed", "schedule.horizon=900 steps"], "budget"),
        (["clock=real", "budget=5 s", "schedule=fixed", "schedule.horizon=1 s"], "schedule.horizon"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(tiny: Tiny, overrides: list[str], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}=") as error:
        STAGE.resolve(tiny(*overrides))
    assert "\n" not in str(error.value)
