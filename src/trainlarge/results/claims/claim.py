"""What a claim is: a statement of a paper, and a function that judges it on the models of one part of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from trainlarge.results.analysis.intervals import Comparison, ComparisonFamily, Difference, number
from trainlarge.results.analysis.scored_models import ScoredModels

PAPER = "Li et al. 2020 (arXiv 2002.11794)"


class Standing(StrEnum):
    """How a claim stands on a study."""

    SUPPORTED = "holds"
    CONTRADICTED = "does not hold"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Verdict:
    """A claim judged on one part of a study."""

    standing: Standing
    """Whether it holds."""
    text: str
    """The numbers, with intervals, as sentences."""
    cells: tuple[str, ...] = ()
    """The cells that the numbers are from."""


@dataclass(frozen=True)
class Claim:
    """A statement of a paper."""

    name: str
    """A short name: ``finetuning``."""
    statement: str
    """What the paper says, in one sentence."""
    source: str
    """Paper and figure."""
    judge: Callable[[ScoredModels], Verdict | None]
    """Judges it; None where it is not about such models."""


def undecided(why: str, rows: pd.DataFrame | None = None) -> Verdict:
    """That a claim could not be judged."""
    return Verdict(Standing.UNDECIDED, f"{why[0].upper()}{why[1:]}.", () if rows is None else cells_of(rows))


def cells_of(*frames: pd.DataFrame) -> tuple[str, ...]:
    """The cells of some rows, each once."""
    return tuple(dict.fromkeys(str(cell) for frame in frames for cell in frame["cell"]))


def tested(gaps: Mapping[Comparison, Difference]) -> dict[Comparison, Difference]:
    """The differences of a claim, clear where they are significant among all of them (Holm 1979)."""
    family = ComparisonFamily(gaps)
    return {key: family[key] for key in gaps}


def judgement(gaps: Iterable[Difference], text: str, cells: tuple[str, ...], margin: float = 0.0) -> Verdict:
    """The verdict on a claim that all differences are above ``-margin``; without seeds, what was measured.

    Args:
        gaps: the differences, tested.
        text: the numbers.
        cells: those behind them.
        margin: a difference below it does not matter.
    """
    gaps = list(gaps)
    found = standing(gaps, margin)
    if any(gap.p is None for gap in gaps):
        is_so = all(gap.value > -margin for gap in gaps)
        text += f" Too few seeds for a test; as measured, it {'holds' if is_so else 'does not hold'}."
    return Verdict(found, text, cells)


def standing(gaps: Iterable[Difference], margin: float = 0.0) -> Standing:
    """How it stands that all differences are above ``-margin``.

    Contradicted by one that is clearly below 0 and by the margin or more; supported if every interval ends above the
    margin. So without a margin each must be clearly above 0.
    """
    gaps = list(gaps)
    if any(gap.is_clear and gap.value < 0 and gap.value <= -margin for gap in gaps):
        return Standing.CONTRADICTED
    holds = all(gap.low > -margin for gap in gaps) if margin else all(gap.is_clear and gap.value > 0 for gap in gaps)
    return Standing.SUPPORTED if gaps and holds else Standing.UNDECIDED


def amount(gap: Difference) -> str:
    """A difference without its sign, with the interval on the same side: ``0.31 points (95 % interval ...)``."""
    return str(gap if gap.value >= 0 else gap.turned())


def score_text(models: ScoredModels, value: float) -> str:
    """A score as people read it: points as per cent, a loss without the sign that makes more of it better."""
    return f"{number(value, 1)} %" if models.is_share else f"{number(-value, 3)} {models.unit}"
