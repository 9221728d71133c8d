"""What predicted labels of rows are scored by, as scikit-learn defines it. NumPy alone.

Classes are numbered from 0. A score that is not defined (a correlation with something constant, an F1 without a row
of the class) is 0, as in scikit-learn: ``f1_score`` with ``zero_division=0``, ``matthews_corrcoef``, and
``r_regression`` with ``force_finite``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from trainlarge.data.arrays import Integers

Numbers = NDArray[np.float64]


def accuracy(labels: Integers, predictions: Integers) -> float:
    """Share of rows whose class is predicted. Both are [rows]."""
    return float((labels == predictions).mean())


def f1(labels: Integers, predictions: Integers, classes: int) -> float:
    """F1: 2 TP / (2 TP + FP + FN) of class 1 where there are two, else the mean over the classes that occur.

    Args:
        labels: true classes, [rows].
        predictions: predicted classes, [rows].
        classes: number of different classes.
    """
    return float(f1_of(*_counts(labels, predictions, classes)))


def f1_of(true: Numbers, predicted: Numbers, right: Numbers) -> Numbers:
    """``f1`` from counts: rows of each class, rows that are predicted so, and those of them that are right.

    Args:
        true, predicted, right: [classes, ...] each; behind the classes any shape, that of the result.
    """
    whole = true + predicted
    scores = ratio(2.0 * right, whole)
    return scores[1] if len(scores) == 2 else ratio(scores.sum(0), (whole > 0).sum(0))


def matthews(labels: Integers, predictions: Integers, classes: int) -> float:
    """Matthews correlation of several classes, R_K of Gorodkin 2004 (Computational Biology and Chemistry 28).

    Args:
        labels: true classes, [rows].
        predictions: predicted classes, [rows].
        classes: number of different classes.
    """
    return float(matthews_of(*_counts(labels, predictions, classes)))


def matthews_of(true: Numbers, predicted: Numbers, right: Numbers) -> Numbers:
    """``matthews`` from counts as in ``f1_of``: covariance of both classes over the root of their variances."""
    rows = true.sum(0)
    both = right.sum(0) * rows - (true * predicted).sum(0)
    spreads = (rows**2 - (true**2).sum(0)) * (rows**2 - (predicted**2).sum(0))
    return ratio(both, np.sqrt(spreads))


def ratio(above: Numbers, below: Numbers) -> Numbers:
    """The quotient; 0 where it is not defined."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _counts(labels: Integers, predictions: Integers, classes: int) -> tuple[Numbers, Numbers, Numbers]:
    """Rows of each class, rows that are predicted so, and those of them that are right, [classes] each."""
    right = labels[labels == predictions]
    # As fp64: squares of many rows are beyond 64 bits.
    true, predicted, both = (
        np.bincount(values, minlength=classes).astype(np.float64) for values in (labels, predictions, right)
    )
    return true, predicted, both


def pearson(labels: Numbers, predictions: Numbers) -> float:
    """Pearson's correlation of two series, [rows] each."""
    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return float(np.clip(_standardized(labels) @ _standardized(predictions), -1, 1))


def _standardized(values: Numbers) -> Numbers:
    """The values without their mean, over their norm; first over the largest, since squares may be 0 or infinite."""
    rest = values - values.mean()
    scaled = rest / np.abs(rest).max()
    return np.asarray(scaled / np.linalg.norm(scaled))


def spearman(labels: Numbers, predictions: Numbers) -> float:
    """Spearman's correlation: Pearson's of the ranks, where equal values have the mean of their ranks."""
    return pearson(_ranks(labels), _ranks(predictions))


def _ranks(values: Numbers) -> Numbers:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)


def class_scores(labels: Integers, predictions: Integers, classes: int) -> dict[str, float]:
    """All scores of classification but the loss."""
    return {
        "accuracy": accuracy(labels, predictions),
        "f1": f1(labels, predictions, classes),
        "matthews": matthews(labels, predictions, classes),
    }


def number_scores(labels: Numbers, predictions: Numbers) -> dict[str, float]:
    """All scores of regression but the loss."""
    scores: Mapping[str, Callable[[Numbers, Numbers], float]] = {"pearson": pearson, "spearman": spearman}
    return {name: score(labels, predictions) for name, score in scores.items()}
