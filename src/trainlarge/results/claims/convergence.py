"""Does convergence explain robustness? What compression costs along pretraining, each size against itself."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from trainlarge.results.analysis.intervals import Comparison, Difference, mean_over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels, Treatment, slope
from trainlarge.results.claims.claim import PAPER, Claim, Standing, Verdict, amount, cells_of, tested, undecided
from trainlarge.results.report.finding import listed
from trainlarge.results.series import by_size


def judge(models: ScoredModels) -> Verdict | None:
    """The change of the cost of quantization from the shortest to the longest pretraining, along a straight line."""
    treatment = next((one for one in models.treatments if one.name.endswith("bits")), None)
    if treatment is None:
        return undecided("nothing was quantized in the same way at every size", models.cells)
    changes = tested(cost_changes(models, treatment))
    if not changes:
        return undecided("no size was compressed after two budgets", treatment.rows)
    rows = treatment.rows
    parts = listed(
        f"{'rises' if gap.value >= 0 else 'falls'} by {amount(gap)} for {series}" for (series,), gap in changes.items()
    )
    ends = rows.sort_values("budget_value")["budget"]
    text = f"From {ends.iloc[0]} to {ends.iloc[-1]} of training, what {treatment.name} cost {parts}."
    if any(gap.p is None for gap in changes.values()):
        is_flat = all(abs(gap.value) < models.margin for gap in changes.values())
        text += f" Too few seeds for a test; as measured, it {'holds' if is_flat else 'does not hold'}."
    return Verdict(_standing(list(changes.values()), models.margin), f"{text} {_by_budget(rows)}", cells_of(rows))


def cost_changes(models: ScoredModels, treatment: Treatment) -> dict[Comparison, Difference]:
    """Series -> slope of its cost against the logarithm of its steps, times the range of that."""
    changes: dict[Comparison, Difference] = {}
    for series in by_size(treatment.rows):
        rows = treatment.rows[treatment.rows["series"] == series]
        points = (
            rows.assign(x=np.log2(rows["step"].astype(float))).groupby(["seed", "budget_value"])[["x", "cost"]].mean()
        )
        runs = [run for _, run in points.groupby("seed") if len(run) > 1]
        spans = [float(np.ptp(run["x"])) for run in runs]
        if runs and min(spans) > 0:
            values = [span * slope(run["x"], run["cost"]) for span, run in zip(spans, runs, strict=True)]
            changes[series,] = mean_over_seeds(values, models.unit)
    return changes


def _standing(changes: list[Difference], margin: float) -> Standing:
    """Costs that stay the same support the claim, one that clearly changes by the margin or more contradicts it."""
    if any(gap.is_clear and abs(gap.value) >= margin for gap in changes):
        return Standing.CONTRADICTED
    is_flat = all(-margin < gap.low and gap.high < margin for gap in changes)
    return Standing.SUPPORTED if is_flat else Standing.UNDECIDED


def _by_budget(rows: pd.DataFrame) -> str:
    """At how many budgets each larger size loses less than the next smaller one."""
    table = rows.groupby(["budget_unit", "budget_value", "series"])["cost"].mean().unstack().dropna()
    order = [name for name in by_size(rows) if name in table]
    if len(order) < 2 or table.empty:
        return "Sizes share no budget."
    falls = sum(all(less < more for more, less in pairwise(row)) for row in table[order].to_numpy())
    return f"Each larger size loses less than the next smaller one at {falls} of {len(table)} budgets."


CONVERGENCE = Claim(
    "convergence",
    "Convergence does not explain robustness: a size loses as much to compression early in training as late.",
    f"{PAPER}, figure 8",
    judge,
)
