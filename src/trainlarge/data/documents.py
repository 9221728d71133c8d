"""Which document each position of a token file belongs to, and how well token frequencies alone predict."""

from __future__ import annotations

import numpy as np

from trainlarge.data.arrays import Integers, Tokens
from trainlarge.data.prepare import PreparedData

CHUNK = 1 << 24
"""Tokens that are read at a time."""


def documents_at(tokens: Tokens, sep_id: int, places: Integers) -> Integers:
    """Number of the document of each place in a token file.

    Args:
        tokens: the whole file [tokens]; each document is closed by one ``sep_id``, which belongs to it.
        places: indices into ``tokens``, any shape.

    Returns:
        Numbers from 0 on, int64, in the shape of ``places``.
    """
    ends = [
        start + np.flatnonzero(np.asarray(tokens[start : start + CHUNK]) == sep_id)
        for start in range(0, len(tokens), CHUNK)
    ]
    return np.searchsorted(np.concatenate(ends), places, side="left").astype(np.int64)


def token_counts(prepared: PreparedData) -> Integers:
    """How often each token occurs in the training split, [entries of the vocabulary] int64."""
    counts = np.zeros(prepared.vocab_size, np.int64)
    for start in range(0, len(prepared.train), CHUNK):
        counts += np.bincount(prepared.train[start : start + CHUNK], minlength=prepared.vocab_size)
    return counts


def frequency_loss(counts: Integers, labels: Integers) -> float:
    """Mean loss, in nats per token, of predicting ``labels`` by token frequencies alone.

    Every token is counted once more than it occurs (Laplace's rule), so that no loss is infinite. A model whose loss is
    not below this has learned nothing from the context.

    Args:
        counts: occurrences in the training split, [entries of the vocabulary].
        labels: token ids to predict, any shape.
    """
    shares = (counts + 1.0) / (counts.sum() + len(counts))
    return float(-np.log(shares[labels]).mean())
