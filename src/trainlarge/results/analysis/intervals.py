"""Differences between means over seeds, with intervals over documents and seeds, and what is clear among many of them.

Two kinds of noise count. Documents of the evaluation set are resampled, the same ones for both sides (cluster
bootstrap). Training runs differ by their seed: that variance is taken from the spread of seeds, each side its own
(Welch 1947), since a bootstrap over two to five seeds gives intervals that are too short. Both are added; their degrees
of freedom follow from Satterthwaite (1946). With one seed nothing is known of the second kind, so no order is tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trainlarge.results.analysis.t_distribution import quantile, two_sided_p
from trainlarge.results.document_losses import Sample

LEVEL = 0.95
"""Probability that an interval covers the true difference; 1 - this is the error rate of all tests of a report."""
Comparison: TypeAlias = tuple[str | float, ...]
"""What is compared: along which axis or at what equal, two series, and where."""
ONE_SEED = "one seed"
NO_DOCUMENTS = "no losses per document were kept"


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds."""

    seeds: tuple[float, ...]
    """The value of each seed."""
    draws: NDArray[np.float64] | None
    """Deviation of the mean under each resampling of the documents, [draws]; None: not known."""

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return float(np.mean(self.seeds))

    @property
    def seed_variance(self) -> float:
        """Variance of the mean from seed to seed; 0 for one seed, where it is not known."""
        return float(np.var(self.seeds, ddof=1)) / len(self.seeds) if len(self.seeds) > 1 else 0.0


@dataclass(frozen=True)
class Difference:
    """A difference between two means."""

    value: float
    """In ``unit``."""
    low: float = math.nan
    """Lower end of the 95 % interval; NaN where there is none."""
    high: float = math.nan
    """Upper end."""
    p: float | None = None
    """Probability of such a difference where there is none in truth; None where the order cannot be tested."""
    why_not: str = ""
    """Why it cannot be tested."""
    is_clear: bool = False
    """Whether it is significant after correction for all comparisons of the report."""
    unit: str = "nats"
    """Unit of the difference and of its interval."""

    @property
    def covers_zero(self) -> bool:
        """Whether there is an interval and 0 is within it."""
        return self.low <= 0 <= self.high

    def turned(self) -> Difference:
        """The same with the sides exchanged."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)

    def __str__(self) -> str:
        """Such as ``0.08 nats (95 % interval 0.02 to 0.14; clear)``."""
        return f"{number(self.value, self.precision)} {self.unit} ({self.remark()})"

    def remark(self) -> str:
        """Interval and verdict."""
        verdict = f"order not tested: {self.why_not}" if self.p is None else ("clear" if self.is_clear else "not clear")
        return verdict if math.isnan(self.low) else f"{self.interval()}; {verdict}"

    def interval(self) -> str:
        """Such as ``95 % interval over documents 0.02 to 0.14``, or why there is none."""
        if math.isnan(self.low):
            return f"no interval: {self.why_not}"
        over = " over documents" if self.why_not == ONE_SEED else ""
        return f"95 % interval{over} {number(self.low, self.precision)} to {number(self.high, self.precision)}"

    @property
    def precision(self) -> int:
        """Decimals that are worth writing: the interval decides."""
        half = (self.high - self.low) / 2
        return 2 if math.isnan(half) or half >= 0.02 else (3 if half >= 0.0005 else 4)


def number(value: float, decimals: int) -> str:
    """A number in fixed notation, with no minus before zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def difference(left: SeedMean, right: SeedMean, sample: Sample) -> Difference:
    """``left - right`` with its interval."""
    value = left.value - right.value
    if left.draws is None or right.draws is None:
        return Difference(value, why_not=NO_DOCUMENTS, unit=sample.unit)
    parts = [(float(np.mean((left.draws - right.draws) ** 2)) * sample.correction, sample.freedom)]
    parts += [(side.seed_variance, len(side.seeds) - 1.0) for side in (left, right) if len(side.seeds) > 1]
    gap = _with_error(value, parts, sample.unit)
    return replace(gap, p=None, why_not=ONE_SEED) if min(len(left.seeds), len(right.seeds)) < 2 else gap


def above_zero(estimate: SeedMean, sample: Sample) -> Difference:
    """The estimate itself with its interval, such as a loss increase of one checkpoint, paired with its dense loss."""
    nothing = SeedMean((0.0,) * len(estimate.seeds), None if estimate.draws is None else np.zeros_like(estimate.draws))
    return difference(estimate, nothing, sample)


def over_seeds(left: Sequence[float], right: Sequence[float], unit: str) -> Difference:
    """Mean of ``left`` less that of ``right``, with an interval over seeds alone: it holds for one evaluation set.

    Args:
        left, right: the values of independent runs.
        unit: of the values.
    """
    value = float(np.mean(left) - np.mean(right))
    if min(len(left), len(right)) < 2:
        return Difference(value, why_not=ONE_SEED, unit=unit)
    return _with_error(
        value, [(float(np.var(side, ddof=1)) / len(side), len(side) - 1.0) for side in (left, right)], unit
    )


def mean_over_seeds(values: Sequence[float], unit: str) -> Difference:
    """The mean of the values of independent runs with its interval, compared with 0."""
    value = float(np.mean(values))
    if len(values) < 2:
        return Difference(value, why_not=ONE_SEED, unit=unit)
    return _with_error(value, [(float(np.var(values, ddof=1)) / len(values), len(values) - 1.0)], unit)


def _with_error(value: float, parts: Sequence[tuple[float, float]], unit: str) -> Difference:
    """A difference whose variance has parts, each with its degrees of freedom (Satterthwaite 1946)."""
    variance, squares = sum(part for part, _ in parts), sum(part**2 / freedom for part, freedom in parts)
    freedom, error = variance**2 / squares if squares else 1.0, math.sqrt(variance)
    half = quantile(LEVEL, freedom) * error
    t = abs(value) / error if error else (math.inf if value else 0.0)
    return Difference(value, value - half, value + half, two_sided_p(t, freedom), unit=unit)


class ComparisonFamily:
    """All comparisons of a report, and which are clear (Holm 1979): at most 5 % of reports call one so by chance.

    Args:
        differences: comparisons that the report states.
        left_out: how many more there could have been: where series were chosen by their losses, they count as well.
    """

    def __init__(self, differences: Mapping[Comparison, Difference], left_out: int = 0) -> None:
        tested = sorted((gap.p, str(key), key) for key, gap in differences.items() if gap.p is not None)
        self.tested = len(tested) + left_out if tested else 0
        clear = set()
        for rank, (p, _, key) in enumerate(tested):
            if p * (self.tested - rank) >= 1 - LEVEL:
                break
            clear.add(key)
        self._differences = {key: replace(gap, is_clear=key in clear) for key, gap in differences.items()}

    def __getitem__(self, key: Comparison) -> Difference:
        return self._differences[key]

    def __contains__(self, key: Comparison) -> bool:
        return key in self._differences
