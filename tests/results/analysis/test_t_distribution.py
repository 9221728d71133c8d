from __future__ import annotations

import math

import pytest

from trainlarge.results.analysis.t_distribution import quantile, two_sided_p


@pytest.mark.parametrize(
    ("freedom", "t"),
    # Abramowitz and Stegun, table 26.10, 95 % within.
    [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042), (120, 1.980), (1e7, 1.960)],
)
def test_quantiles_are_those_of_the_tables(freedom: float, t: float) -> None:
    assert quantile(0.95, freedom) == pytest.approx(t, abs=6e-4)
    assert two_sided_p(quantile(0.95, freedom), freedom) == pytest.approx(0.05, abs=1e-7)


def test_closed_forms_and_limits() -> None:
    for t in (0.01, 0.3, 1.0, 4.0, 1000.0):
        assert two_sided_p(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9)
        assert two_sided_p(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)
        assert two_sided_p(-t, 3.7) == two_sided_p(t, 3.7)
    assert two_sided_p(0.0, 5) == 1 and two_sided_p(math.inf, 5) == 0
