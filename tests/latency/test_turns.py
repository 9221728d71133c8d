from __future__ import annotations

import math
import random

import pytest

from trainlarge.latency.break_even import crossing
from trainlarge.latency.turns import LEAST_ROUNDS, in_turns, median_interval, passes_per_round, ratios


def test_every_runtime_computes_its_passes_in_every_round() -> None:
    ran: list[str] = []
    runs = {name: lambda name=name: ran.append(name) for name in ("a", "b")}
    taken = in_turns(runs, {"a": 3, "b": 2}, rounds=4, threads=1)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 4, "b": 4}
    assert all(second > 0 for seconds in taken.values() for second in seconds)
    # Warm-up passes come first; what is timed ends each turn.
    turns = [name for place, name in enumerate(ran) if place == 0 or ran[place - 1] != name]
    assert turns == ["a", "b", "a", "b", "a"] and ran.count("a") >= 12 and ran.count("b") >= 8


def test_a_clock_may_count_something_else() -> None:
    joules = 0.0

    def run() -> None:
        nonlocal joules
        joules += 2.5

    assert in_turns({"a": run}, {"a": 4}, rounds=2, threads=1, clock=lambda: joules) == {"a": [2.5, 2.5]}


def test_slow_passes_run_once_per_round() -> None:
    assert passes_per_round(lambda: sum(range(3_000_000)), threads=1) <= 5
    assert passes_per_round(lambda: None, threads=1) > 100


@pytest.mark.parametrize("count", [LEAST_ROUNDS, 30, 101])
def test_the_interval_of_the_median_covers_what_it_says(count: int) -> None:
    draw = random.Random(count)
    inside = 0
    for _ in range(400):
        found = median_interval([draw.lognormvariate(0.0, 1.0) for _ in range(count)])
        assert found.low <= found.median <= found.high
        inside += found.low <= 1.0 <= found.high
    assert inside / 400 > 0.92


def test_the_interval_has_the_ranks_of_the_sign_test() -> None:
    # Tables of the sign test: 10th and 21st of 30.
    found = median_interval([float(value) for value in range(1, 31)])
    assert (found.low, found.median, found.high) == (10.0, 15.5, 21.0)


def test_ratios_are_those_of_the_same_round() -> None:
    slow = [1.0, 2.0, 40.0, 1.0, 3.0, 2.0]
    assert ratios(slow, [value / 2 for value in slow]) == ratios([2.0] * 6, [1.0] * 6)


def test_the_break_even_lies_where_the_line_crosses_one() -> None:
    assert crossing({0.5: 0.25, 0.9: 0.5, 0.95: 2.0}) == pytest.approx(0.925)
    assert crossing({0.5: 0.25, 0.9: 0.5}) is None
    assert crossing({0.5: 1.5, 0.9: 2.0}) == 0.5
    # Once more slower: from the last change on.
    assert crossing({0.5: 2.0, 0.7: 0.5, 0.9: 2.0}) == pytest.approx(0.8)
    assert math.isclose(crossing({0.5: 1.0, 0.9: 4.0}) or 0.0, 0.5)
