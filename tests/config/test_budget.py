from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.budget import EPOCHS, FLOPS, SECONDS, STEPS, TOKENS, Budget, kept_form, parse_budget
from trainlarge.errors import UserError

UNITS = [FLOPS, TOKENS, STEPS, SECONDS, EPOCHS]
NO_BUDGETS = ["1 h 30", "30 s 2 min", "2 min 2 min", "5 s 3 steps", "k steps", "1 kk steps", "1 k min", "1,000 steps"]
NO_BUDGETS += ["1e99999999999999999999 FLOPs", "1e-99999 s", "10 m"]


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
        ("1k steps", 1000, "steps"),
        ("10M tokens", 1e7, "tokens"),
        ("1.5B tokens", 1.5e9, "tokens"),
        ("10 Mtokens", 1e7, "tokens"),
        ("2 P FLOPs", 2e15, "FLOPs"),
        ("1E FLOPs", 1e18, "FLOPs"),
        ("1.1k steps", 1100, "steps"),
        ("10_000 steps", 10000, "steps"),
        ("3 epochs", 3, "epochs"),
        ("2 min 30 s", 150, "s"),
        ("1h30min", 5400, "s"),
        ("250 ms", 0.25, "s"),
    ],
)
def test_units_are_converted_to_the_base_unit(text: str, value: float, unit: str) -> None:
    budget = parse_budget(text)
    assert (budget.value, budget.unit) == (value, unit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("150000000000 FLOPs", "150 GFLOPs"),
        ("1e+15 FLOPs", "1 PFLOPs"),
        ("10000000 tokens", "10M tokens"),
        ("1000 steps", "1000 steps"),
        ("2e6 steps", "2M steps"),
        ("60 s", "60 s"),
        ("1 epochs", "1 epoch"),
        ("0.5 epochs", "0.5 epochs"),
        ("1800 s", "30 min"),
        ("500 s", "500 s"),
        ("36 h", "36 h"),
        ("7 d", "7 d"),
    ],
)
def test_budgets_are_shown_with_prefixes(text: str, words: str) -> None:
    assert parse_budget(text).in_words == words


@given(st.floats(1e-3, 1e24), st.sampled_from(UNITS))
def test_what_is_shown_is_the_same_budget(value: float, unit: str) -> None:
    budget = parse_budget(str(Budget(value, unit)))
    assert str(parse_budget(budget.in_words)) == str(budget)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("1e15 FLOPs", "1e15 FLOPs"),
        ("2 PFLOPs", "2 PFLOPs"),
        ("2 min", "2 min"),
        ("1k steps", "1000 steps"),
        ("2 P FLOPs", "2e+15 FLOPs"),
        ("1 h 30 min", "5400 s"),
        ("1 epoch", "1 epochs"),
        ("10_0 s", "100 s"),
    ],
)
def test_a_horizon_is_kept_as_it_is_written_where_old_ids_have_it_so(text: str, kept: str) -> None:
    assert kept_form(text, "schedule.horizon") == kept


@given(st.floats(1e-3, 1e24), st.sampled_from(UNITS))
def test_text_round_trip_is_stable(value: float, unit: str) -> None:
    budget = parse_budget(str(Budget(value, unit)))
    assert budget == parse_budget(str(budget))
    assert budget.value == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize(
    "text", ["5", "5 bananas", "-3 s", "0 steps", "inf s", "1e999 s", "", "s", "1..2 s", None, *NO_BUDGETS]
)
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
