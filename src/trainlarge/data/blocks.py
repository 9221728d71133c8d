"""Training blocks: which tokens a step sees, as a pure function of (seed, step)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from trainlarge.errors import UserError


def packed(tokens: np.ndarray, sequence_length: int) -> np.ndarray:
    """View of a token file as non-overlapping blocks without padding, shape [blocks, sequence_length].

    The tokens behind the last whole block are left out.

    Raises:
        UserError: there are fewer tokens than one block.
    """
    if not 0 < sequence_length <= len(tokens):
        raise UserError("data.sequence_length", sequence_length, f"1 to {len(tokens)}, the tokens of this text")
    count = len(tokens) // sequence_length
    return np.asarray(tokens)[: count * sequence_length].reshape(count, sequence_length)


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Permutation of ``count`` blocks for one epoch, shape [count] int64.

    Ranks of the raw output of the counter-based generator Philox4x64 (Salmon et al., SC 2011) keyed by (seed, epoch):
    unlike ``Generator.permutation``, NumPy guarantees that stream, so an order does not change with its version.
    """
    draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    order = np.argsort(draws, kind="stable")
    order.setflags(write=False)
    return order


class Blocks:
    """Blocks of a token file in shuffled order, each exactly once an epoch.

    Nothing is stateful: a batch depends on (seed, step, rows) alone, so a run resumes exactly from its step number,
    and any number of workers can share a batch by taking parts of ``rows_of``.
    """

    def __init__(self, tokens: np.ndarray, sequence_length: int, seed: int) -> None:
        """Cut ``tokens`` [tokens] into blocks.

        Raises:
            UserError: there are fewer tokens than one block.
        """
        self.blocks = packed(tokens, sequence_length)
        self.seed = seed

    def __len__(self) -> int:
        """Blocks an epoch has."""
        return len(self.blocks)

    def rows_of(self, step: int, rows: int) -> np.ndarray:
        """Indices of the blocks of batch ``step``, shape [rows] int64; a batch may cross the end of an epoch."""
        count, first, last = len(self), step * rows, (step + 1) * rows
        epochs = range(first // count, (last - 1) // count + 1)
        orders = (epoch_order(self.seed, epoch, count)[max(first - epoch * count, 0) :] for epoch in epochs)
        return np.concatenate(list(orders))[:rows]

    def batch(self, step: int, rows: int) -> np.ndarray:
        """Ids of batch ``step``, shape [rows, sequence_length] int64."""
        return self.blocks[self.rows_of(step, rows)].astype(np.int64)
