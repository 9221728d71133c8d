from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.schedule import ScheduleConfig
from trainlarge.errors import UserError
from trainlarge.training.schedule import DECAY_SHAPES, branches, make_schedule

CONFIG = ScheduleConfig(warmup_steps=10)


def schedule(horizon_steps: int | None = None, **changes: Any) -> Any:
    return make_schedule(replace(CONFIG, **changes), horizon_steps)


@pytest.mark.parametrize("shape", DECAY_SHAPES)
def test_decays_go_from_one_to_zero_and_never_rise(shape: str) -> None:
    values = [DECAY_SHAPES[shape](done / 100) for done in range(101)]
    assert values[0] == 1 and values[-1] == pytest.approx(0, abs=1e-12)
    assert all(after <= before for before, after in pairwise(values))


@given(st.integers(2, 5000))
def test_a_cooldown_is_the_trunk_then_a_decay_of_its_share(total: int) -> None:
    cooldown = schedule()
    start = cooldown.branch_start(total)
    assert total - start == max(1, round(0.2 * total))
    assert cooldown.branch(start, total) == cooldown.trunk(start), "the branch leaves the trunk without a jump"
    assert all(cooldown.trunk(step) == 1 for step in range(10, start))


def test_one_minus_sqrt_by_hand() -> None:
    cooldown = schedule()
    assert cooldown.branch(80 + 5, 100) == pytest.approx(1 - math.sqrt(5 / 20))
    assert [cooldown.trunk(step) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]


def test_matched_ends_at_its_budget_and_shares_no_trunk() -> None:
    matched = schedule(name="matched", decay_shape="linear")
    assert not matched.shares_trunk
    rates = [matched.branch(step, 110) for step in range(10, 110)]
    assert rates[0] == 1 and rates[-1] == pytest.approx(0.01) and rates[50] == pytest.approx(0.5)


def test_fixed_is_the_start_of_the_matched_run_of_its_horizon() -> None:
    fixed, matched = (
        schedule(200, name="fixed", horizon="200 steps", decay_shape="linear"),
        schedule(name="matched", decay_shape="linear"),
    )
    long_run = [matched.trunk(step) if step < 10 else matched.branch(step, 200) for step in range(200)]
    assert [fixed.trunk(step) for step in range(200)] == long_run
    assert fixed.branch_start(50) == 50, "stopped, not decayed"
    assert fixed.trunk(200) == fixed.trunk(300) == 0, "and no rate is below zero"


def test_four_doubling_budgets_cost_at_most_a_quarter_more_than_the_largest() -> None:
    plan = branches(schedule(), {"a": 100, "b": 200, "c": 400, "d": 800})
    trunk = max(branch.start for branch in plan)
    assert (trunk + sum(branch.stop - branch.start for branch in plan)) / 800 <= 1.25


def test_branches_leave_in_order_and_equal_ends_are_one_branch() -> None:
    plan = branches(schedule(), {"late": 400, "early": 100, "twin": 100})
    assert [(branch.start, branch.stop, branch.cell_ids) for branch in plan] == [
        (80, 100, ("early", "twin")),
        (320, 400, ("late",)),
    ]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": "wavy"}, "schedule.name"),
        ({"decay_shape": "square"}, "schedule.decay_shape"),
        ({"decay_share": 1.0}, "schedule.decay_share"),
        ({"warmup_steps": -1}, "schedule.warmup_steps"),
        ({"name": "fixed"}, "schedule.horizon"),
    ],
)
def test_impossible_schedules_are_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}="):
        schedule(**changes)
