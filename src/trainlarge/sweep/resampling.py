"""Resampling the documents of an evaluation set: how much a mean over them may differ by chance (cluster bootstrap)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
"""Resamplings of the documents: the standard error that they give is then good to 2 %."""
SEED = 2002_11794
"""Seed of the resampling: equal studies give equal intervals."""
MOST_KEPT = 1 << 22
"""Numbers of a resampling that are held at a time, and kept for the next comparison where they are all: 32 MB."""

Floats = NDArray[np.float64]


@lru_cache(maxsize=4)
def drawn(count: int) -> Floats:
    """How often each of ``count`` documents is drawn, with replacement, [documents, ``DRAWS``]."""
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), DRAWS).T.astype(float)


def resampled_means(sums: Floats, predictions: Floats) -> Floats:
    """Means over predictions under resampled documents: ratios of two sums over what was drawn, [means, ``DRAWS``].

    Args:
        sums: of what is averaged, over each document, [means, documents].
        predictions: of each document, [documents].
    """
    both = np.vstack([sums, predictions])
    totals = np.concatenate([both @ times for times in times_drawn(len(predictions))], axis=1)
    means: Floats = totals[:-1] / totals[-1]
    return means


def times_drawn(count: int) -> Iterator[Floats]:
    """How often each document is drawn, [documents, draws], in parts of the draws where there are many documents."""
    if count * DRAWS <= MOST_KEPT:
        yield drawn(count)
        return
    generator, most = np.random.default_rng(SEED), max(1, MOST_KEPT // count)
    for start in range(0, DRAWS, most):
        draws = (generator.integers(0, count, count) for _ in range(min(most, DRAWS - start)))
        yield np.stack([np.bincount(draw, minlength=count) for draw in draws], axis=1).astype(float)
