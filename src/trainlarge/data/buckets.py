"""Batches of rows of like lengths: the order of an epoch, rearranged within windows of it.

Every row still occurs once per epoch, and the rows of a batch are still a function of (seed, step, rows).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainlarge.data.arrays import Integers
from trainlarge.data.blocks import RowOrder
from trainlarge.data.label_table import LabelTable, row_lengths, training_rows

WINDOW_BATCHES = 64
"""Batches that are formed of the rows of as many batches of the epoch's order."""
_SPREAD = (5**0.5 - 1) / 2


def by_length(order: Integers, lengths: Integers, rows: int, head: int, shift: float) -> Integers:
    """The order of an epoch with the rows of each window sorted by length, then cut into batches.

    Neighbouring batches differ in length and any few in a row have about the mean length (additive recurrence of the
    golden ratio), so that neither the gradient nor the time of a step drifts within a window.

    Args:
        order: indices of rows, [rows of the epoch].
        lengths: tokens of each row by its index.
        rows: rows of a batch.
        head: rows at the beginning that complete the last batch of the epoch before: they stay, as do those at the end
            that begin a batch of the next epoch.
        shift: in [0, 1), where the sequence of lengths begins.
    """
    arranged = order.copy()
    for start in range(head, len(order) - rows + 1, WINDOW_BATCHES * rows):
        batches = min(WINDOW_BATCHES, (len(order) - start) // rows)
        window = order[start : start + batches * rows]
        ranked = window[np.argsort(lengths[window], kind="stable")].reshape(batches, rows)
        turns = np.argsort((shift + _SPREAD * np.arange(batches)) % 1, kind="stable")
        places = np.empty(batches, np.int64)
        places[turns] = np.arange(batches)
        arranged[start : start + batches * rows] = ranked[places].ravel()
    return arranged


class BucketedOrder(RowOrder):
    """Training rows in shuffled order, each once per epoch, in batches of like lengths.

    Args:
        lengths: tokens of each row, by its index, [count].
    """

    def __init__(
        self, lengths: Integers, count: int, seed: int, fraction: float = 1.0, among: Integers | None = None
    ) -> None:
        super().__init__(count, seed, fraction, among)
        self._lengths = lengths if self.used is None else lengths[self.used]
        self._arranged: dict[tuple[int, int], Integers] = {}

    def epoch(self, number: int, rows: int) -> Integers:
        """The order of an epoch in batches of ``rows`` rows."""
        key = number, rows
        if key not in self._arranged:
            # Two are needed where a batch crosses the end of an epoch.
            self._arranged = dict(list(self._arranged.items())[-1:])
            shift = (_SPREAD * (1 + self.seed % 1000) + number * _SPREAD**2) % 1
            head = min(-number * self.count % rows, self.count)
            self._arranged[key] = by_length(super().epoch(number, rows), self._lengths, rows, head, shift)
        return self._arranged[key]


def training_order(table: LabelTable, seed: int, fraction: float, held_out: float, longest: int | None) -> RowOrder:
    """The order in which the rows of a table are trained on.

    Args:
        table: of the training split.
        seed: of the order.
        fraction: share of the rows that is used.
        held_out: share that is held out to choose by.
        longest: most tokens of a row, for batches of like lengths; None: in batches of any rows.

    Raises:
        UserError: nothing is left to train on.
    """
    trained = training_rows(table, held_out)
    count = len(table) if trained is None else len(trained)
    if longest is None:
        return RowOrder(count, seed, fraction, trained)
    return BucketedOrder(row_lengths(table, longest), count, seed, fraction, trained)


class StepLengths:
    """Tokens of the longest row of each step, found once and kept.

    Args:
        find: tokens of the longest row of the steps ``start`` to ``stop - 1``, [steps].
    """

    AT_ONCE = 1024
    """Steps that are looked at together."""

    def __init__(self, find: Callable[[int, int], Integers]) -> None:
        self._find = find
        self._known = np.empty(0, np.int64)

    def __call__(self, start: int, stop: int) -> Integers:
        """Those of the steps ``start`` to ``stop - 1``, [steps] int64."""
        parts = [self._known]
        for first in range(len(self._known), stop, self.AT_ONCE):
            parts.append(self._find(first, first + self.AT_ONCE))
        if len(parts) > 1:
            self._known = np.concatenate(parts)
        return self._known[start:stop]

    @classmethod
    def of_table(cls, table: LabelTable, order: RowOrder, rows: int, longest: int) -> StepLengths:
        """Those of batches of ``rows`` rows of a table, none of which is longer than ``longest``."""
        lengths = row_lengths(table, longest)

        def find(start: int, stop: int) -> Integers:
            return np.array([lengths[order.rows_of(step, rows)].max() for step in range(start, stop)], np.int64)

        return cls(find)
