"""Scores of labels are those of scikit-learn, also where they are hardly defined."""

from __future__ import annotations

import numpy as np
import pytest

from trainlarge.tasks.label_metrics import class_scores, number_scores, pearson, spearman

CASES = [
    ([0, 1, 1, 0, 1], [0, 1, 0, 0, 1], 2), ([0, 0], [0, 0], 2), ([1, 1], [0, 0], 2), ([0, 1, 0], [1, 1, 1], 2),
    ([0, 1, 2, 2, 1], [0, 2, 1, 2, 1], 3), ([0, 0, 2, 2], [0, 2, 2, 0], 3), ([0, 1, 2], [2, 0, 1], 3), ([1], [1], 3),
]  # fmt: skip
"""True classes, predicted ones, number of classes: constant predictions, classes that are missing."""


def test_known_values() -> None:
    labels, predictions = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0, 0, 0])
    scores = class_scores(labels, predictions, 2)
    assert scores == pytest.approx({"accuracy": 6 / 8, "f1": 4 / 6, "matthews": (2 * 4 - 1 * 1) / (3 * 5)})
    numbers = np.array([1.0, 2.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0, 40.0])
    assert number_scores(*numbers) == pytest.approx({"pearson": 3 / 10**0.5, "spearman": 4.5 / (4.5 * 5) ** 0.5})


@pytest.mark.parametrize("constant", [0.0, 1e-30, 0.1, 3e8])
def test_a_constant_correlates_with_nothing(constant: float) -> None:
    others, same = np.arange(7.0), np.full(7, constant)
    for score in (pearson, spearman):
        assert score(others, same) == score(same, others) == score(same, same) == 0.0


def test_correlations_do_not_depend_on_scale() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=50), draw.normal(size=50)
    for factor in (1e-200, 1e150):
        assert pearson(one * factor, other) == pytest.approx(pearson(one, other), rel=1e-12)


def test_classes_are_scored_as_by_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    draw = np.random.default_rng(0)
    random = [(*draw.integers(0, classes, (2, rows)), classes) for rows in (1, 2, 9, 300) for classes in (2, 3, 5)]
    for labels, predictions, classes in [*CASES, *random]:
        average = "binary" if classes == 2 else "macro"
        expected = {
            "accuracy": metrics.accuracy_score(labels, predictions),
            "f1": metrics.f1_score(labels, predictions, average=average, zero_division=0),
            "matthews": metrics.matthews_corrcoef(labels, predictions),
        }
        scores = class_scores(np.array(labels), np.array(predictions), classes)
        assert scores == pytest.approx(expected, abs=1e-12), (labels, predictions)


def test_numbers_are_scored_as_by_scikit_learn_and_scipy() -> None:
    selection = pytest.importorskip("sklearn.feature_selection", reason="scikit-learn is not installed")
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    draw = np.random.default_rng(0)
    for rows in (2, 3, 50, 400):
        for distinct in (2, 4, 1000):
            labels, predictions = draw.integers(0, distinct, (2, rows)) / 7
            expected = selection.r_regression(predictions[:, None], labels)[0]
            scores = number_scores(labels, predictions)
            assert scores["pearson"] == pytest.approx(expected, abs=1e-12)
            ranks = stats.rankdata(predictions)[:, None], stats.rankdata(labels)
            assert scores["spearman"] == pytest.approx(selection.r_regression(*ranks)[0], abs=1e-12)
