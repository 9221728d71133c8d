"""Timing in turns: in each round every runtime computes some passes, so that other work meets all of them alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.benchmark import Timer
from torch.utils.benchmark import timer as default_timer

ROUND_SECONDS = 0.05
"""About how long one runtime computes in a round."""
LEAST_ROUNDS = 6
"""Rounds from which on the median has a 95 % interval."""
COVERED = 0.95

Clock = Callable[[], float]
"""Rises with time, or with energy."""


@dataclass(frozen=True)
class Middle:
    """The median of some numbers and two ends around it."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Middle:
    """Median and quartiles."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Middle(float(median), float(low), float(high))


def median_interval(values: Sequence[float]) -> Middle:
    """Median with its 95 % interval: two of the values, by the sign test (exact, whatever their distribution).

    The k-th lowest and the k-th highest of n values lie around the true median but for a probability of
    2 P(B(n, 1/2) < k); k is the largest for which that is at most 5 %.

    Args:
        values: at least ``LEAST_ROUNDS``; of fewer the ends are the lowest and the highest, which cover less.
    """
    ordered, count = sorted(values), len(values)
    rank, below = 0, 1 / 2**count
    while 2 * below <= 1 - COVERED:
        rank += 1
        below += math.comb(count, rank) / 2**count
    rank = max(rank, 1)
    return Middle(float(np.median(ordered)), ordered[rank - 1], ordered[-rank])


def passes_per_round(run: Callable[[], object], threads: int) -> int:
    """Passes that take about ``ROUND_SECONDS``, by timing one."""
    seconds = Timer("run()", globals={"run": run}, num_threads=threads).timeit(1).median
    return max(1, math.ceil(ROUND_SECONDS / seconds))


def in_turns(
    runs: Mapping[str, Callable[[], object]],
    passes: Mapping[str, int],
    rounds: int,
    threads: int,
    clock: Clock | None = None,
) -> dict[str, list[float]]:
    """Name -> what a pass took in each round.

    The order turns around from one round to the next, so that no runtime always follows the same other one.

    Args:
        runs: a pass of each runtime.
        passes: how many each computes in a round.
        rounds: how many there are.
        threads: CPU threads of torch.
        clock: what is read before and after; None: seconds, on a GPU once it is done.
    """
    read = clock or default_timer
    timers = {name: Timer("run()", timer=read, globals={"run": run}, num_threads=threads) for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for place in range(rounds):
        for name in reversed(list(runs)) if place % 2 else runs:
            taken[name].append(timers[name].timeit(passes[name]).median)
    return taken


def ratios(above: Sequence[float], below: Sequence[float]) -> Middle:
    """The median of the ratios of two runtimes round by round, with its 95 % interval."""
    return median_interval([first / second for first, second in zip(above, below, strict=True)])
