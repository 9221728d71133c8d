"""Do larger models lose less to the same compression, after the same budget?"""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from trainlarge.results.analysis.intervals import Difference, number, over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels, over_runs
from trainlarge.results.claims.claim import PAPER, Claim, Verdict, amount, cells_of, judgement, tested, undecided
from trainlarge.results.report.finding import listed
from trainlarge.results.series import by_size, last_budget


def judge(models: ScoredModels) -> Verdict | None:
    """The smallest against the largest size, quantized and pruned, at the last budget that both have."""
    treated = {one.name: last_budget(one.rows) for one in models.treatments}
    treated = {name: rows for name, rows in treated.items() if rows["series"].nunique() > 1}
    if not treated:
        return undecided("no two sizes were compressed in the same way after the same budget", models.cells)
    gaps = tested({(name,): _gap(models, rows) for name, rows in treated.items()})
    texts = [_told(models, name, rows, gaps[name,]) for name, rows in treated.items()]
    return judgement(gaps.values(), " ".join(texts), cells_of(*treated.values()))


def _gap(models: ScoredModels, rows: pd.DataFrame) -> Difference:
    """Cost of the smallest size less that of the largest."""
    order = by_size(rows)
    smallest, largest = (over_runs(rows[rows["series"] == name], "cost") for name in (order[0], order[-1]))
    return over_seeds(smallest, largest, models.unit)


def _told(models: ScoredModels, name: str, rows: pd.DataFrame, gap: Difference) -> str:
    order, means = by_size(rows), rows.groupby("series")["cost"].mean()
    decimals = 2 if models.is_share else 3
    costs = listed(f"{number(float(means[series]), decimals)} ({series})" for series in order)
    falls = sum(means[larger] < means[smaller] for smaller, larger in pairwise(order))
    word = "less" if gap.value >= 0 else "more"
    return (
        f"After {rows['budget'].iloc[0]}, {name} cost {costs} {models.unit}: {order[-1]} loses {word} than {order[0]} "
        f"by {amount(gap)}, and {falls} of {len(order) - 1} steps to the next larger size lose less."
    )


ROBUSTNESS = Claim(
    "robustness",
    "Larger models are more robust to compression: the same quantization and pruning cost them less.",
    f"{PAPER}, figure 6",
    judge,
)
