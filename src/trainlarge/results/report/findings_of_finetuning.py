"""What finetuned models show beyond the paper's claims: the best of them, and what pretraining was good for."""

from __future__ import annotations

from itertools import product

import pandas as pd

from trainlarge.results.analysis.intervals import Comparison, Difference, number, over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels, over_runs
from trainlarge.results.claims.claim import amount, score_text, tested
from trainlarge.results.report.caveats import chosen, overlap, plateau, sizes
from trainlarge.results.report.finding import Finding, counted, listed
from trainlarge.results.series import by_size, last_budget

CAVEATS = (chosen, overlap, sizes)
"""What is said first; that orders by loss are not tested does not matter here."""


def finetuning_findings(models: ScoredModels) -> list[Finding]:
    """All findings of this file, caveats first."""
    # Where models are judged by another score, ``at_chance`` says which of them learned nothing: the loss of a
    # classifier that is often right is above that of frequencies where it is wrong with great confidence.
    caveats = (*CAVEATS, plateau) if models.column == "loss" else CAVEATS
    return [
        *(finding for caveat in caveats for finding in caveat(models.evidence)),
        *choice(models),
        *best_finetuned(models),
        *at_chance(models),
        *pretraining_helps(models),
    ]


def choice(models: ScoredModels) -> list[Finding]:
    """How many runs stand behind each model, and how they were chosen."""
    cells = models.cells
    runs = cells.groupby(["series", "budget"])["seed"].nunique()
    seeds = str(runs.min()) if runs.min() == runs.max() else f"{runs.min()} to {runs.max()}"
    has_choice = bool(cells.filter(regex="^selection_").notna().to_numpy().any())
    by = (
        "rates and epochs were chosen on a part of the training rows"
        if has_choice
        else "no rate or epoch was chosen: no selection scores were recorded"
    )
    models_in_words = counted(len(cells), "finetuned model", "finetuned models")
    text = f"{models_in_words}, {seeds} per size and pretraining budget; {by}."
    if runs.max() == 1:
        text += " With one seed no order is tested."
    return [Finding(text, is_result=False)]


def best_finetuned(models: ScoredModels) -> list[Finding]:
    """The best size and pretraining budget, beside what the most frequent label or the mean alone scores."""
    if models.cells.empty:
        return []
    means = models.cells.groupby(["series", "budget"], sort=False)["score"].mean().reset_index()
    best = means.sort_values("score", ascending=False).to_dict("records")[0]
    name = f"baseline_{models.column}"
    baseline = models.cells[name].astype(float).mean() if name in models.cells else float("nan")
    what = "the most frequent label" if models.is_share and models.column == "accuracy" else "the mean alone"
    beside = "" if pd.isna(baseline) else f"; {what} gives {score_text(models, models.scaled(baseline))}"
    text = f"Best: {best['series']} after {best['budget']} of pretraining, {score_text(models, best['score'])}{beside}."
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


def pretraining_helps(models: ScoredModels) -> list[Finding]:
    """Each size after the last pretraining budget against the same size from initial weights, on as many rows."""
    if models.part.untrained.empty:
        return []
    finetuned, scratch = last_budget(models.cells), _latest(models.with_scores(models.part.untrained))
    gaps: dict[Comparison, Difference] = {}
    shares = sorted(finetuned["fraction"].unique())
    for shape, share in product(finetuned.sort_values("parameters")["shape"].unique(), shares):
        pair = [rows[rows["shape"].eq(shape) & rows["fraction"].eq(share)] for rows in (finetuned, scratch)]
        if all(map(len, pair)):
            with_it, without = (over_runs(rows, "score") for rows in pair)
            name = f"{shape}, {100 * share:g} % of the rows" if len(shares) > 1 else str(shape)
            gaps[name,] = over_seeds(with_it, without, models.unit)
    if not gaps:
        return []
    found = tested(gaps)
    parts = listed(
        f"{amount(gap)} {'better' if gap.value >= 0 else 'worse'} ({name})" for (name,), gap in found.items()
    )
    text = (
        f"After {finetuned['budget'].iloc[0]} of pretraining, finetuned models score, against initial weights, {parts}."
    )
    return [Finding(text, is_result=all(gap.is_clear and gap.value > 0 for gap in found.values()))]


def _latest(rows: pd.DataFrame) -> pd.DataFrame:
    """The largest budget of each run: where no selection part chose among them, all of them are there."""
    keys = ["shape", "fraction", "seed"]
    return rows[rows["budget_value"].eq(rows.groupby(keys)["budget_value"].transform("max"))]


def score_rows(models: ScoredModels) -> list[list[str]]:
    """Rows of a table: score of each size after each pretraining budget, with its standard deviation over runs.

    Sizes that were trained from initial weights too come last, without a pretraining budget.
    """
    cells, rows = models.cells, []
    for series in by_size(cells):
        of_series = cells[cells["series"] == series]
        for _, group in of_series.groupby(["budget_unit", "budget_value"]):
            loss = number(float(group["parent_loss"].mean()), 3)
            rows.append([series, str(group["budget"].iloc[0]), loss, *_score_and_spread(models, group)])
    if len(models.part.untrained):
        scratch = _latest(models.with_scores(models.part.untrained))
        groups = scratch.groupby(["parameters", "fraction", "shape"])
        rows += [[str(shape), "none", "–", *_score_and_spread(models, group)] for (_, _, shape), group in groups]
    return rows


def _score_and_spread(models: ScoredModels, rows: pd.DataFrame) -> list[str]:
    """Mean score over runs, its standard deviation, and their number."""
    runs = over_runs(rows, "score")
    spread = number(float(pd.Series(runs).std()), 2) if len(runs) > 1 else "–"
    return [score_text(models, sum(runs) / len(runs)), spread, str(len(runs))]
