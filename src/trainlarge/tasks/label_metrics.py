"""What predicted labels of rows are scored by, as scikit-learn defines it. NumPy alone.

Classes are numbered from 0. A score that is not defined (a correlation with something constant, an F1 without a row
of the class) is 0, as in scikit-learn: ``f1_score`` with ``zero_division=0``, ``matthews_corrcoef``, and
``r_regression`` with ``force_finite``.
"""

from __future__ import annotations

import math
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
    true, predicted, right = _counts(labels, predictions, classes)
    whole = (true + predicted).astype(np.float64)
    scores = np.divide(2.0 * right, whole, out=np.zeros(classes), where=whole > 0)
    return float(scores[1] if classes == 2 else scores[whole > 0].mean())


def matthews(labels: Integers, predictions: Integers, classes: int) -> float:
    """Matthews correlation of several classes, R_K of Gorodkin 2004 (Computational Biology and Chemistry 28).

    Args:
        labels: true classes, [rows].
        predictions: predicted classes, [rows].
        classes: number of different classes.
    """
    # Whole numbers of Python: squares of rows may be beyond 64 bits.
    true, predicted, right = (count.tolist() for count in _counts(labels, predictions, classes))
    rows = len(labels)
    both = sum(right) * rows - sum(one * other for one, other in zip(true, predicted, strict=True))
    spreads = [rows**2 - sum(count**2 for count in counts) for counts in (true, predicted)]
    return both / math.sqrt(spreads[0] * spreads[1]) if all(spreads) else 0.0


def _counts(labels: Integers, predictions: Integers, classes: int) -> tuple[Integers, Integers, Integers]:
    """Rows of each class, rows that are predicted so, and those of them that are right, [classes] each."""
    right = labels[labels == predictions]
    true, predicted, both = (np.bincount(values, minlength=classes) for values in (labels, predictions, right))
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
