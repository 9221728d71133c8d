"""Are larger models harder to finetune? Compared at equal pretraining loss, between the checkpoints of each run."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainlarge.results.analysis.intervals import Comparison, Difference, number, over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.claims.claim import PAPER, Claim, Verdict, amount, cells_of, judgement, tested, undecided
from trainlarge.results.scores import ANY_TASK

_POINTS = 65
"""Points at which a line is read between the ends of a range: its mean is then exact to a hundredth of a point."""
LOSS_UNIT = ANY_TASK["loss"].short_unit
Floats = NDArray[np.float64]
Line: TypeAlias = tuple[Floats, Floats]
"""Pretraining losses, ascending, and scores, of the checkpoints of one run."""
Range: TypeAlias = tuple[float, float]


def judge(models: ScoredModels) -> Verdict | None:
    """Each larger size against the next smaller one that reaches equal pretraining losses."""
    if not models.part.is_finetuned:
        return None
    lines = score_lines(models.cells)
    found = _gaps(models, lines)
    if not found:
        return undecided("no two sizes reach equal pretraining losses: more budgets per size would", models.cells)
    gaps, ranges = (
        tested({key: gap for key, (gap, _) in found.items()}),
        {key: span for key, (_, span) in found.items()},
    )
    texts = [
        f"between {number(ranges[key][0], 2)} and {number(ranges[key][1], 2)} {LOSS_UNIT} of pretraining loss, "
        f"{key[0]} scores {amount(gap)} {'above' if gap.value >= 0 else 'below'} {key[1]}"
        for key, gap in gaps.items()
    ]
    compared = models.cells[models.cells["series"].isin({name for key in gaps for name in key})]
    text = "; ".join(texts)
    return judgement(gaps.values(), f"{text[0].upper()}{text[1:]}.", cells_of(compared), models.margin)


def score_lines(cells: pd.DataFrame) -> dict[str, list[Line]]:
    """Series -> the line of each run: mean score of the models finetuned from a checkpoint against its loss."""
    known = cells.dropna(subset=["parent_loss", "score"])
    means = known.groupby(["series", "seed", "parent_loss"], sort=True)["score"].mean().reset_index()
    lines: dict[str, list[Line]] = {}
    for (series, _), rows in means.groupby(["series", "seed"], sort=False):
        lines.setdefault(str(series), []).append((rows["parent_loss"].to_numpy(float), rows["score"].to_numpy(float)))
    return lines


def common_range(lines: list[Line]) -> Range | None:
    """The losses that every line covers; None where there are none."""
    low, high = max(float(x[0]) for x, _ in lines), min(float(x[-1]) for x, _ in lines)
    return (low, high) if low < high else None


def mean_over(line: Line, span: Range) -> float:
    """Mean score over a range of losses, straight lines between checkpoints."""
    values = np.interp(np.linspace(*span, _POINTS), *line)
    return float(np.mean((values[1:] + values[:-1]) / 2))


def _gaps(models: ScoredModels, lines: dict[str, list[Line]]) -> dict[Comparison, tuple[Difference, Range]]:
    """(larger, smaller) -> score of the larger less that of the smaller, and the losses at which they were compared."""
    order = [name for name in models.order if name in lines]
    gaps: dict[Comparison, tuple[Difference, Range]] = {}
    for place, larger in enumerate(order):
        for smaller in reversed(order[:place]):
            span = common_range([*lines[larger], *lines[smaller]])
            if span is not None:
                left, right = ([mean_over(line, span) for line in lines[name]] for name in (larger, smaller))
                gaps[larger, smaller] = over_seeds(left, right, models.unit), span
                break
    return gaps


FINETUNING = Claim(
    "finetuning",
    "Larger models are not harder to finetune: at equal pretraining loss they score at least as well.",
    f"{PAPER}, section 3",
    judge,
)
