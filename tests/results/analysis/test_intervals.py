"""Intervals cover what they should, and "clear" is rarely wrong: on made-up studies whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulated import AXIS, simulated_lines
from trainlarge.results.analysis.intervals import (
    NO_DOCUMENTS,
    ONE_SEED,
    ComparisonFamily,
    Difference,
    SeedMean,
    difference,
)
from trainlarge.results.analysis.seed_lines import SeedLines, pair_comparisons
from trainlarge.results.document_losses import DocumentSums, Sample

STUDIES = 200


@pytest.mark.parametrize(
    ("seeds", "seed_noise"),
    [(1, 0.0), (3, 0.05), *(pytest.param(*some, marks=pytest.mark.long) for some in ((2, 0.05), (3, 0.3), (5, 0.05)))],
)
def test_intervals_cover_the_true_difference(seeds: int, seed_noise: float) -> None:
    draw, covered = np.random.default_rng(seeds), 0
    for _ in range(STUDIES):
        found = simulated_lines(draw, {"small": 0.0, "large": 0.1}, seeds, seed_noise)
        gap = found.difference("small", "large", found.points[-1])
        covered += gap.low <= -0.1 <= gap.high
    assert 0.90 <= covered / STUDIES <= 0.99


def test_intervals_over_rows_would_not_cover() -> None:
    # The same studies if every masked token were an observation of its own.
    draw, covered = np.random.default_rng(0), 0
    for _ in range(STUDIES):
        found = simulated_lines(draw, {"small": 0.0, "large": 0.1}, 1, 0.0)
        sums = found.sample.sums["loss"]
        each = (sums["small-0-40"] - sums["large-0-40"]) / found.sample.predictions
        tokens = np.repeat(each, found.sample.predictions.astype(int))
        error = tokens.std(ddof=1) / math.sqrt(len(tokens))
        covered += abs(tokens.mean() + 0.1) < 1.96 * error
    assert covered / STUDIES < 0.7


@pytest.mark.parametrize("seeds", [pytest.param(2, marks=pytest.mark.long), 3, pytest.param(5, marks=pytest.mark.long)])
def test_where_sizes_do_not_differ_hardly_any_study_calls_one_clearly_better(seeds: int) -> None:
    draw, wrong = np.random.default_rng(seeds), 0
    for _ in range(STUDIES):
        found = simulated_lines(draw, {"a": 0.0, "b": 0.0, "c": 0.0}, seeds)
        differences = pair_comparisons(found)
        family = ComparisonFamily(differences)
        assert family.tested == len(differences) == 6
        wrong += any(family[key].is_clear for key in differences)
    assert wrong / STUDIES <= 0.05


def test_a_large_difference_is_clear_with_three_seeds_and_never_with_one() -> None:
    draw = np.random.default_rng(0)
    for seeds, is_clear in ((3, True), (1, False)):
        found = simulated_lines(draw, {"a": 0.0, "b": 1.0, "c": 2.0}, seeds)
        family = ComparisonFamily(pair_comparisons(found))
        gaps = [family[key] for key in pair_comparisons(found)]
        assert {gap.is_clear for gap in gaps} == {is_clear}
        assert {gap.why_not for gap in gaps} == {"" if is_clear else ONE_SEED}
        assert all(gap.high < 0 for gap in gaps)
        assert ("clear" in str(gaps[0])) is is_clear and ("order not tested: one seed" in str(gaps[0])) is not is_clear


def test_without_losses_per_document_nothing_is_tested() -> None:
    gap = difference(SeedMean((1.0, 1.1), None), SeedMean((3.0, 3.1), None), Sample())
    assert gap.p is None and gap.why_not == NO_DOCUMENTS and math.isnan(gap.low)
    assert str(gap) == f"-2.00 nats (order not tested: {NO_DOCUMENTS})"


def test_holm_corrects_for_all_that_was_tested() -> None:
    family = ComparisonFamily(
        {name: Difference(1.0, 0.5, 1.5, p) for name, p in {"a": 0.01, "b": 0.024, "c": 0.2}.items()}
    )
    assert [family[name].is_clear for name in "abc"] == [True, True, False] and family.tested == 3
    alone = ComparisonFamily({name: Difference(1.0, 0.5, 1.5, 0.02) for name in "abc"})
    assert not any(alone[name].is_clear for name in "abc"), "0.02 each is not enough for three"
    untested = ComparisonFamily({"a": Difference(1.0, 0.5, 1.5, 0.04), "b": Difference(1.0)})
    assert untested["a"].is_clear and not untested["b"].is_clear and untested.tested == 1


def test_more_documents_of_the_same_kind_give_a_narrower_interval_and_seeds_a_wider_one() -> None:
    draw = np.random.default_rng(0)
    quiet, noisy = (simulated_lines(draw, {"a": 0.0, "b": 0.1}, 3, noise) for noise in (0.001, 0.4))
    widths = [found.difference("a", "b", found.points[-1]) for found in (quiet, noisy)]
    assert widths[1].high - widths[1].low > 3 * (widths[0].high - widths[0].low)


def test_between_two_budgets_a_value_lies_between_its_cells() -> None:
    found = simulated_lines(np.random.default_rng(0), {"a": 0.0, "b": 0.1}, 2)
    middle = math.log(20.0)
    ends = [found.at("a", point) for point in found.points]
    between = found.at("a", middle)
    assert between is not None and ends[0] is not None and ends[1] is not None
    assert between.value == pytest.approx((ends[0].value + ends[1].value) / 2)
    assert between.draws is not None and between.draws.std() > 0
    assert found.at("a", math.log(100.0)) is None


def test_equal_studies_give_equal_intervals() -> None:
    def gap() -> Difference:
        found: SeedLines = simulated_lines(np.random.default_rng(1), {"a": 0.0, "b": 0.1}, 3)
        return pair_comparisons(found)[AXIS, "a", "b", found.points[-1]]

    assert gap() == gap()


def test_cells_over_other_documents_have_no_losses() -> None:
    sample = Sample()
    sample.add("a", DocumentSums([0, 1], np.array([2.0, 3.0]), np.array([1.0, 2.0])))
    sample.add("b", DocumentSums([0, 2], np.array([2.0, 3.0]), np.array([1.0, 2.0])))
    assert set(sample.sums["loss"]) == {"a"} and sample.draws("loss", [[("b", 1.0)]]) is None
