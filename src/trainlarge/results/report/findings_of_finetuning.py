"""What finetuned models show beyond the paper's claims: the best of them, and what pretraining was good for."""

from __future__ import annotations

from itertools import product

import pandas as pd

from trainlarge.results.analysis.intervals import Comparison, Difference, number, over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels, over_runs
from trainlarge.results.claims.claim import amount, tested
from trainlarge.results.report.caveats import chosen, overlap, plateau, sizes
from trainlarge.results.report.finding import Finding, counted, listed
from trainlarge.results.report.findings_of_scores import at_chance, best_model, score_and_spread
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
        *best_model(models),
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
            rows.append([series, str(group["budget"].iloc[0]), loss, *score_and_spread(models, group)])
    if len(models.part.untrained):
        scratch = _latest(models.with_scores(models.part.untrained))
        groups = scratch.groupby(["parameters", "fraction", "shape"])
        rows += [[str(shape), "none", "–", *score_and_spread(models, group)] for (_, _, shape), group in groups]
    return rows
