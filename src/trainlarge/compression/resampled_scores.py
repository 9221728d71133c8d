"""Scores of predicted labels when rows are resampled, all resamplings at once: what their intervals are made from.

Every score is that of rows of which each is there as often as it was drawn, as scikit-learn defines it; one that is not
defined is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trainlarge.sweep.resampling import Floats
from trainlarge.tasks.label_metrics import f1_of, matthews_of, ratio

Score = Callable[[Floats, Floats, Floats, int], Floats]
"""(labels [rows], predictions [rows], how often each row is drawn [rows, draws], number of classes) -> [draws]."""


def _accuracy(labels: Floats, predictions: Floats, times: Floats, _classes: int) -> Floats:
    shares: Floats = (labels == predictions).astype(float) @ times / times.sum(0)
    return shares


def _f1(labels: Floats, predictions: Floats, times: Floats, classes: int) -> Floats:
    return f1_of(*_counts(labels, predictions, times, classes))


def _matthews(labels: Floats, predictions: Floats, times: Floats, classes: int) -> Floats:
    return matthews_of(*_counts(labels, predictions, times, classes))


def _pearson(labels: Floats, predictions: Floats, times: Floats, _classes: int) -> Floats:
    # Values that are constant become 0 to the bit, and squares lose no digits to a large mean.
    first, second = (values - values[0] for values in (labels, predictions))
    first, second = first - first.mean(), second - second.mean()
    sums: Floats = np.stack([first, second, first**2, second**2, first * second]) @ times / times.sum(0)
    spreads = (sums[2] - sums[0] ** 2) * (sums[3] - sums[1] ** 2)
    return np.clip(ratio(sums[4] - sums[0] * sums[1], np.sqrt(np.maximum(spreads, 0))), -1, 1)


def _spearman(labels: Floats, predictions: Floats, times: Floats, _classes: int) -> Floats:
    first, second = (_ranks(values, times) for values in (labels, predictions))
    rows = times.sum(0)
    # The mean of all ranks, whatever the ties.
    first, second = first - (rows + 1) / 2, second - (rows + 1) / 2
    covariance, *spreads = (
        np.einsum("ij,ij,ij->j", times, *pair) for pair in ((first, second), (first, first), (second, second))
    )
    return ratio(covariance, np.sqrt(spreads[0] * spreads[1]))


SCORES: Mapping[str, Score] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
"""Name of a metric -> its resampled scores. A metric that is not here has no interval."""


def _counts(labels: Floats, predictions: Floats, times: Floats, classes: int) -> tuple[Floats, Floats, Floats]:
    """Rows of each class, rows that are predicted so, and those that are both, [classes, draws] each."""
    counts = np.empty((3, classes, times.shape[1]))
    for one in range(classes):
        true, predicted = labels == one, predictions == one
        counts[:, one] = np.stack([true, predicted, true & predicted]).astype(float) @ times
    return counts[0], counts[1], counts[2]


def _ranks(values: Floats, times: Floats) -> Floats:
    """Ranks of rows in each draw, [rows, draws]: equal values, and a row that is drawn again, have their mean rank."""
    order = np.argsort(values, kind="stable")
    is_first = np.diff(values[order], prepend=-np.inf) > 0
    together = np.add.reduceat(times[order], np.flatnonzero(is_first), axis=0)
    group = np.empty(len(values), dtype=np.int64)
    group[order] = is_first.cumsum() - 1
    ranks: Floats = (together.cumsum(0) - (together - 1) / 2)[group]
    return ranks
