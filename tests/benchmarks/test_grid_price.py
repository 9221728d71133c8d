"""What a grid's price is made of; the measuring itself is the benchmark's own."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trainlarge.config.plain import to_plain

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def grid_price(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("grid_price")


def record(grid_price: ModuleType, schedule: str, steps: int, branch_step: int) -> dict[str, Any]:
    [config, *_] = (config for config in grid_price._configs("16x1", [steps], 1) if config.schedule.name == schedule)
    return {"config": to_plain(config), "step": steps, "flops": steps * 10.0, "branch_step": branch_step}


def test_budgets_share_steps_where_their_schedule_shares_a_trunk(grid_price: ModuleType) -> None:
    budgets, starts = [10, 20, 40, 80], [8, 16, 32, 64]
    for name, steps in (("cooldown", 64 + 2 + 4 + 8 + 16), ("matched", 150)):
        records = [record(grid_price, name, *each) for each in zip(budgets, starts, strict=True)]
        row = grid_price._price(name, "16x1", records, budgets)
        assert (row["ours"], row["theirs"], row["ratio"]) == (steps * 10.0, 800.0, steps / 80)


def test_losses_name_the_device_that_trained(grid_price: ModuleType) -> None:
    losses = {("cooldown", 10): [3.0], ("matched", 10): [3.1]}
    assert grid_price._loss("matched", "16x1", losses, 10, "Some GPU")["device"] == "Some GPU"
