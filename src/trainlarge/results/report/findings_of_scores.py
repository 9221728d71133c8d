"""What models show by the score that their task is judged by, where that is not the loss: classifiers, for example.

The loss of a classifier that is often right may be above that of label frequencies, where it is wrong with great
confidence. So nothing is said by it of such models.
"""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from trainlarge.results.analysis.intervals import Comparison, Difference, number, over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels, over_runs
from trainlarge.results.claims.claim import amount, score_text, tested
from trainlarge.results.report.caveats import disturbed, lost_parts, overlap, seeds, sizes, times
from trainlarge.results.report.finding import Finding, listed
from trainlarge.results.series import by_size, last_budget

NAMED_PAIRS = 6
"""Pairs of sizes that one sentence names."""
CAVEATS = (times, overlap, disturbed, seeds, sizes, lost_parts)
"""What is said first. Whether an order by loss is tested does not matter here."""


def score_findings(models: ScoredModels) -> list[Finding]:
    """All findings on models that were trained from initial weights, caveats first."""
    caveats = [finding for caveat in CAVEATS for finding in caveat(models.evidence)]
    return [*caveats, *at_chance(models), *best_model(models), *sizes_compared(models)]


def best_model(models: ScoredModels) -> list[Finding]:
    """The best size and budget, beside what the most frequent label or the mean alone scores."""
    if models.cells.empty:
        return []
    means = models.cells.groupby(["series", "budget"], sort=False)["score"].mean().reset_index()
    best = means.sort_values("score", ascending=False).to_dict("records")[0]
    name = f"baseline_{models.column}"
    baseline = models.cells[name].astype(float).mean() if name in models.cells else float("nan")
    what = "the most frequent label" if models.is_share and models.column == "accuracy" else "the mean alone"
    beside = "" if pd.isna(baseline) else f"; {what} gives {score_text(models, models.scaled(baseline))}"
    budget = f"{best['budget']} of pretraining" if models.part.is_finetuned else best["budget"]
    text = f"Best: {best['series']} after {budget}, {score_text(models, best['score'])}{beside}."
    return [Finding(text)]


def at_chance(models: ScoredModels) -> list[Finding]:
    """Models that learned nothing that their score shows."""
    rows = models.at_chance
    if rows.empty:
        return []
    baseline = score_text(models, float(rows["baseline"].mean()))
    is_all = len(rows) == models.cells.groupby(["series", "budget"]).ngroups
    who = listed(f"{series} after {budget}" for series, budget in zip(rows["series"], rows["budget"], strict=True))
    text = (
        f"At chance, not clearly better than the most frequent label ({baseline}): {'all models' if is_all else who}."
    )
    text += " No finding of the paper is judged on them."
    return [Finding(text, is_result=False)]


def sizes_compared(models: ScoredModels) -> list[Finding]:
    """Each size against the next smaller one after the last common budget, with intervals over seeds."""
    rows = last_budget(models.cells)
    order = by_size(rows)
    if len(order) < 2:
        return []
    runs = {name: over_runs(rows[rows["series"] == name], "score") for name in order}
    pairs: dict[Comparison, Difference] = {
        (smaller, larger): over_seeds(runs[larger], runs[smaller], models.unit) for smaller, larger in pairwise(order)
    }
    gaps = tested(pairs)
    means = listed(f"{score_text(models, sum(runs[name]) / len(runs[name]))} ({name})" for name in order)
    told = [
        f"{larger} is {'better' if gap.value >= 0 else 'worse'} than {smaller} by {amount(gap)}"
        for (smaller, larger), gap in gaps.items()
    ]
    more = f"; and so on for {len(told) - NAMED_PAIRS} pairs more" if len(told) > NAMED_PAIRS else ""
    text = f"After {rows['budget'].iloc[0]}: {means}. {'; '.join(told[:NAMED_PAIRS])}{more}."
    return [Finding(text, is_result=any(gap.is_clear for gap in gaps.values()))]


def budget_rows(models: ScoredModels) -> list[list[str]]:
    """Rows of a table: score of each size after each budget, with its standard deviation over runs."""
    cells, rows = models.cells, []
    for series in by_size(cells):
        for _, group in cells[cells["series"] == series].groupby(["budget_unit", "budget_value"]):
            rows.append([series, str(group["budget"].iloc[0]), *score_and_spread(models, group)])
    return rows


def score_and_spread(models: ScoredModels, rows: pd.DataFrame) -> list[str]:
    """Mean score over runs, its standard deviation, and their number."""
    runs = over_runs(rows, "score")
    spread = number(float(pd.Series(runs).std()), 2) if len(runs) > 1 else "–"
    return [score_text(models, sum(runs) / len(runs)), spread, str(len(runs))]
