from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.budget import Budget, parse_budget
from trainlarge.errors import UserError


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("30 min", 1800, "s"),
        ("2e12 FLOPs", 2e12, "FLOPs"),
        ("2 TFLOPs", 2e12, "FLOPs"),
        ("1e9 tokens", 1e9, "tokens"),
        ("500 steps", 500, "steps"),
        ("7.5s", 7.5, "s"),
        ("2 h", 7200, "s"),
    ],
)
def test_units_are_converted_to_the_base_unit(text: str, value: float, unit: str) -> None:
    budget = parse_budget(text)
    assert (budget.value, budget.unit) == (value, unit)


@given(st.floats(1e-3, 1e24), st.sampled_from(["FLOPs", "tokens", "steps", "s"]))
def test_text_round_trip_is_stable(value: float, unit: str) -> None:
    budget = parse_budget(str(Budget(value, unit)))
    assert budget == parse_budget(str(budget))
    assert budget.value == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize("text", ["5", "5 bananas", "-3 s", "0 steps", "inf s", "1e999 s", "", "s", "1..2 s", None])
def test_what_is_no_budget_is_refused_in_one_line(text: object) -> None:
    with pytest.raises(UserError, match=r"^budget=.*must be a positive number with its unit") as error:
        parse_budget(text)
    assert "\n" not in str(error.value)


def test_budgets_compare_within_a_unit_with_numbers_and_text() -> None:
    budget = parse_budget("2e12 FLOPs")
    assert budget == 2e12 and budget == "2 TFLOPs" and budget > 1e12 and budget <= "3e12 FLOPs"
    assert budget != "2e12 tokens"
    with pytest.raises(UserError):
        assert budget < "3 s"
