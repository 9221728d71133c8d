"""Does compression move the weights of deeper models less, module by module?"""

from __future__ import annotations

import pandas as pd

from trainlarge.results.analysis.intervals import Comparison, Difference, over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels, over_runs
from trainlarge.results.claims.claim import PAPER, Claim, Verdict, cells_of, judgement, tested, undecided
from trainlarge.results.report.finding import listed
from trainlarge.results.series import last_budget
from trainlarge.results.units import significant
from trainlarge.results.weight_changes import MODULES, by_module

MODEL = ("cell", "series", "shape", "variant", "width", "depth", "seed", "parameters")
"""Columns that tell of which model a change is."""


def judge(models: ScoredModels) -> Verdict | None:
    """The shallowest against the deepest model of the width that has the most depths, after the last budget."""
    changes = layer_changes(models)
    if changes.empty:
        return undecided("no weight changes were recorded for models compressed in the same way", models.cells)
    of_width = changes.groupby("width")["depth"].nunique()
    rows = changes[changes["width"] == of_width.idxmax()]
    depths = sorted(rows["depth"].unique())
    if len(depths) < 2:
        return undecided("no two depths were trained at one width", rows)
    gaps = tested(_gaps(rows, depths[0], depths[-1]))
    texts = [_told(rows, name, depths) for name in rows["treatment"].unique()]
    clear = sum(gap.is_clear and gap.value > 0 for gap in gaps.values())
    text = (
        f"Width {rows['width'].iloc[0]}, {depths[0]} to {depths[-1]} layers: {'; '.join(texts)}. Clearly less in "
        f"{clear} of {len(gaps)}."
    )
    return judgement(gaps.values(), text, cells_of(rows))


def layer_changes(models: ScoredModels) -> pd.DataFrame:
    """How far the recipes that every size has moved each module of a layer, after the last budget.

    Returns:
        One row per compress cell and module: its ``cell``, ``treatment`` and what tells its model, ``module``,
        ``mean_absolute_change`` and ``relative_squared_error``.
    """
    made = []
    for treatment in models.treatments:
        rows = last_budget(treatment.rows)
        changes = by_module(models.evidence.frames.weights.of("compress", rows["cell"]))
        known = rows[list(MODEL)]
        made.append(changes.merge(known, on="cell").assign(treatment=treatment.name))
    table = pd.concat(made, ignore_index=True) if made else pd.DataFrame({"module": []})
    return table[table["module"].isin(MODULES)]


def _gaps(rows: pd.DataFrame, shallow: int, deep: int) -> dict[Comparison, Difference]:
    """(recipe, module) -> change of the shallowest less that of the deepest."""
    gaps: dict[Comparison, Difference] = {}
    for (treatment, module), group in rows.groupby(["treatment", "module"], sort=False):
        sides = [group[group["depth"] == depth] for depth in (shallow, deep)]
        if all(len(side) for side in sides):
            first, last = (over_runs(side, "mean_absolute_change") for side in sides)
            gaps[str(treatment), str(module)] = over_seeds(first, last, "")
    return gaps


def _told(rows: pd.DataFrame, treatment: str, depths: list[int]) -> str:
    """The mean change of each module at each depth."""
    means = rows[rows["treatment"] == treatment].groupby(["module", "depth"])["mean_absolute_change"].mean()
    parts = [
        f"{module} {' → '.join(significant(value) for value in means[module].reindex(depths).dropna())}"
        for module in MODULES
        if module in means
    ]
    return f"{treatment} move the mean weight by {listed(parts)}"


WEIGHTS = Claim(
    "weights",
    "Compression moves the weights of deeper models less, in every module.",
    f"{PAPER}, figure 9",
    judge,
)
