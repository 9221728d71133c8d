"""Training blocks: which tokens a step sees, as a pure function of (seed, step)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from trainlarge.data.arrays import Integers, Tokens
from trainlarge.errors import UserError

SUBSET_SEED = 2002_11794
"""Seed of the order from which subsets are cut: a constant, whatever a cell's seed is."""


def packed(tokens: Tokens, sequence_length: int) -> Tokens:
    """View of a token file as non-overlapping blocks without padding, shape [blocks, sequence_length].

    The tokens behind the last whole block are left out.

    Raises:
        UserError: there are fewer tokens than one block.
    """
    check_length(len(tokens), sequence_length)
    count = len(tokens) // sequence_length
    return np.asarray(tokens)[: count * sequence_length].reshape(count, sequence_length)


def check_length(tokens: int, sequence_length: int) -> None:
    """Refuse rows that are longer than a text of so many tokens.

    Raises:
        UserError: on ``data.sequence_length``.
    """
    if not 0 < sequence_length <= tokens:
        raise UserError("data.sequence_length", sequence_length, f"1 to {tokens}, the tokens of this text")


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> Integers:
    """Permutation of ``count`` blocks for one epoch, shape [count] int64.

    Ranks of the raw output of the counter-based generator Philox4x64 (Salmon et al., SC 2011) keyed by (seed, epoch):
    unlike ``Generator.permutation``, NumPy guarantees that stream, so an order does not change with its version.
    """
    draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    order = np.argsort(draws, kind="stable")
    order.setflags(write=False)
    return order


def step_seed(seed: int, step: int) -> int:
    """A seed for one step: the first 62 bits that NumPy's ``SeedSequence`` mixes from (seed, step)."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 2)


@lru_cache(maxsize=4)
def subset(count: int, fraction: float) -> Integers:
    """Indices of the blocks that ``data.fraction`` keeps of ``count``, ascending, shape [kept] int64.

    The first ``fraction * count`` (rounded) of one fixed order, so that a smaller subset is part of every larger one
    and neither the seed nor the model has a say in it.

    Raises:
        UserError: ``fraction`` is not in (0, 1], or leaves no block.
    """
    kept = round(fraction * count) if 0 < fraction <= 1 else 0
    if not kept:
        raise UserError(
            "data.fraction", fraction, f"a number above 0 and at most 1 that leaves at least one of {count} blocks"
        )
    indices = np.sort(epoch_order(SUBSET_SEED, 0, count)[:kept])
    indices.setflags(write=False)
    return indices


def check_fraction(blocks: int, fraction: float, batch_rows: int) -> None:
    """Refuse a share of the training blocks that is smaller than one batch.

    Raises:
        UserError: on ``data.fraction``.
    """
    if fraction < 1 and round(fraction * blocks) < batch_rows:
        needed = f"at least {batch_rows / blocks:.2g}: a batch has {batch_rows} rows and the training data {blocks}"
        raise UserError("data.fraction", fraction, needed)


class RowOrder:
    """Training rows in shuffled order, each exactly once per epoch.

    Nothing is stateful: the rows of a batch depend on (seed, step, rows) alone, so a run resumes exactly from its step
    number, and any number of workers can share a batch by taking parts of ``rows_of``.
    """

    def __init__(self, count: int, seed: int, fraction: float = 1.0, among: Integers | None = None) -> None:
        """The order of ``count`` rows, of which ``fraction`` are used.

        Args:
            among: the indices of these rows; None: 0 to ``count - 1``.

        Raises:
            UserError: ``fraction`` leaves none.
        """
        kept = None if fraction == 1 else subset(count, fraction)
        self.used = kept if among is None else among if kept is None else among[kept]
        self.count = count if self.used is None else len(self.used)
        self.seed = seed

    def __len__(self) -> int:
        """Rows per epoch."""
        return self.count

    def rows_of(self, step: int, rows: int) -> Integers:
        """Indices of the rows of batch ``step``, shape [rows] int64; a batch may cross the end of an epoch."""
        count, first, last = self.count, step * rows, (step + 1) * rows
        epochs = range(first // count, (last - 1) // count + 1)
        orders = [self.epoch(epoch, rows)[max(first - epoch * count, 0) : last - epoch * count] for epoch in epochs]
        return self._in_use(np.concatenate(orders))

    def epoch(self, number: int, rows: int) -> Integers:  # noqa: ARG002
        """The order of an epoch that is taken in batches of ``rows`` rows, [count]."""
        return epoch_order(self.seed, number, self.count)

    def spread_rows(self, rows: int) -> Integers:
        """Indices of at most ``rows`` of the rows in use at even distances, ascending, int64."""
        return self._in_use(spread_indices(self.count, rows))

    def _in_use(self, order: Integers) -> Integers:
        return order if self.used is None else self.used[order]


class Blocks(RowOrder):
    """Blocks of a token file in shuffled order, each exactly once per epoch."""

    def __init__(self, tokens: Tokens, sequence_length: int, seed: int, fraction: float = 1.0) -> None:
        """Cut ``tokens`` [tokens] into blocks, of which ``fraction`` are used.

        Raises:
            UserError: there are fewer tokens than one block, or ``fraction`` leaves none.
        """
        self.blocks = packed(tokens, sequence_length)
        super().__init__(len(self.blocks), seed, fraction)

    def spread(self, rows: int) -> Integers:
        """At most ``rows`` of the blocks in use at even distances, in order, [rows, sequence_length] int64."""
        return self.blocks[self.spread_rows(rows)].astype(np.int64)

    def taken(self, places: Integers) -> Integers:
        """The blocks at ``places`` among those in use, [places, sequence_length] int64."""
        return self.blocks[self._in_use(places)].astype(np.int64)

    def batch(self, step: int, rows: int) -> Integers:
        """Ids of batch ``step``, shape [rows, sequence_length] int64."""
        return self.blocks[self.rows_of(step, rows)].astype(np.int64)


def spread_indices(count: int, rows: int) -> Integers:
    """At most ``rows`` of ``count`` indices at even distances, ascending."""
    kept = min(rows, count)
    return np.arange(kept) * count // kept


def spread(blocks: Tokens, rows: int) -> Integers:
    """At most ``rows`` of the blocks [blocks, sequence_length] at even distances, in order, int64."""
    return blocks[spread_indices(len(blocks), rows)].astype(np.int64)
