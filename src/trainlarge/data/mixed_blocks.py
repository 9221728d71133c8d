"""Training blocks of several sources, mixed by weight: which tokens a step sees, as a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from trainlarge.data.arrays import Integers
from trainlarge.data.blocks import Blocks, epoch_order, spread_indices
from trainlarge.errors import UserError

MOST_ORDERS = 32
"""Orders of sources that are kept: a batch needs one or two of each source."""


@dataclass(frozen=True, eq=False)
class MixedBlocks:
    """Blocks of several sources in shuffled order.

    An epoch has as many rows as there are blocks in use. Of these, each source gives the share that its weight is of
    the sum of all weights, exact to one row, scattered over the epoch at random. A source gives its own blocks in
    shuffled order, each once before any comes again, across the ends of epochs: one that is drawn more often than it
    has blocks is repeated, one that is drawn less often is still seen as a whole in the end.
    """

    sources: Sequence[Blocks]
    """The blocks of each source, each with an order of its own."""
    rows: Sequence[int]
    """Rows that each gives per epoch, at least 1."""
    seed: int
    """Seed of the order in which sources take turns."""

    def __len__(self) -> int:
        """Rows per epoch."""
        return sum(self.rows)

    @cached_property
    def ends(self) -> Integers:
        """Place in an epoch, before it is shuffled, behind the last row of each source."""
        return np.cumsum(self.rows)

    def batch(self, step: int, rows: int) -> Integers:
        """Ids of batch ``step``, shape [rows, sequence_length] int64; a batch may cross the end of an epoch."""
        epochs, places = np.divmod(np.arange(step * rows, (step + 1) * rows), len(self))
        slots = np.empty(rows, np.int64)
        for epoch in np.unique(epochs):
            slots[epochs == epoch] = epoch_order(self.seed, int(epoch), len(self))[places[epochs == epoch]]
        owners = np.searchsorted(self.ends, slots, side="right")
        ids = np.empty((rows, self.sources[0].blocks.shape[1]), np.int64)
        for owner in np.unique(owners):
            is_own, count = owners == owner, self.rows[owner]
            draws = epochs[is_own] * count + slots[is_own] - (self.ends[owner] - count)
            ids[is_own] = _drawn(self.sources[owner], draws)
        return ids

    def spread(self, rows: int) -> Integers:
        """At most ``rows`` of the blocks in use at even distances, source by source, [rows, sequence_length] int64.

        Each source has the share that it has of an epoch.
        """
        owners = np.searchsorted(self.ends, spread_indices(len(self), rows), side="right")
        counts = np.bincount(owners, minlength=len(self.sources))
        return np.concatenate([source.spread(int(count)) for source, count in zip(self.sources, counts, strict=True)])


def rows_by_weight(blocks: Mapping[str, int], weights: Mapping[str, float | None]) -> dict[str, int]:
    """Rows that each source gives per epoch, which has as many as there are blocks.

    Shares are rounded by largest remainder, so that the sum is exact.

    Args:
        blocks: name of a source -> its blocks in use.
        weights: name -> its weight; None: the number of its blocks.

    Raises:
        UserError: a weight is so small that its source would give no row.
    """
    total = sum(blocks.values())
    exact = {name: Fraction(weights[name] or 0) or Fraction(count) for name, count in blocks.items()}
    whole = sum(exact.values())
    shares = {name: weight * total / whole for name, weight in exact.items()}
    rows = {name: int(share) for name, share in shares.items()}
    left = total - sum(rows.values())
    for name in sorted(shares, key=lambda name: (rows[name] - shares[name], name))[:left]:
        rows[name] += 1
    for name, count in rows.items():
        if not count:
            least = float(whole / total)
            raise UserError(
                f"data.sources.{name}.weight", weights[name], f"at least about {least:.2g}: one of {total:,} rows"
            )
    return rows


def source_seed(seed: int, place: int) -> int:
    """Seed of the order of the source at a place: equal sources must not go in step."""
    return int(np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=MOST_ORDERS)
def _source_order(seed: int, epoch: int, count: int) -> Integers:
    return epoch_order.__wrapped__(seed, epoch, count)


def _drawn(source: Blocks, draws: Integers) -> Integers:
    """The blocks that a source gives at ``draws``, counted from the start of training."""
    passes, places = np.divmod(draws, len(source))
    order = np.empty(len(draws), np.int64)
    for number in np.unique(passes):
        is_in_pass = passes == number
        order[is_in_pass] = _source_order(source.seed, int(number), len(source))[places[is_in_pass]]
    return source.taken(order)
