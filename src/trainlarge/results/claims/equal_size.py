"""Does a large model that is compressed heavily beat a small one that is compressed lightly, at no more size?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from trainlarge.results.analysis.intervals import Difference, over_seeds
from trainlarge.results.analysis.scored_models import ScoredModels, over_runs
from trainlarge.results.claims.claim import (
    PAPER,
    Claim,
    Verdict,
    amount,
    cells_of,
    judgement,
    score_text,
    tested,
    undecided,
)
from trainlarge.results.report.finding import listed
from trainlarge.results.series import by_size, last_budget
from trainlarge.results.training_cost import at_last_budget, has_recovery
from trainlarge.results.units import scale_of

LIGHT_BITS, LIGHT_SPARSITY = 8.0, 0.3
"""Compression up to here is light: it cost the paper's models next to nothing."""


@dataclass(frozen=True)
class _Model:
    """A series under a recipe; the mean over runs."""

    series: str
    recipe: str
    size: float
    score: float
    rows: pd.DataFrame

    def described(self, models: ScoredModels, column: str) -> str:
        size = scale_of(column).write(self.size)
        return f"{self.series} with {self.recipe} ({score_text(models, self.score)} at {size})"


def judge_by(column: str) -> Callable[[ScoredModels], Verdict | None]:
    """The judgement with sizes in a column, such as ``file_bytes``."""

    def judge(models: ScoredModels) -> Verdict | None:
        # A model whose recovery made its training longer would be compared with those that were trained less.
        rows = at_last_budget(models.compressed) if len(models.compressed) else models.compressed
        if rows.empty or rows["series"].nunique() < 2:
            return undecided("no two sizes were compressed after the same budget", rows)
        contests = _contests(rows, column)
        if not contests:
            return undecided("no larger model was compressed to the size of a smaller one", rows)
        gaps = tested({(light.series,): _gap(models, best, light, count) for light, best, count in contests})
        texts = [
            f"{best.described(models, column)} scores {amount(gap)} {'above' if gap.value >= 0 else 'below'} "
            f"{light.described(models, column)}"
            for (light, best, _), gap in zip(contests, gaps.values(), strict=True)
        ]
        chosen = "Of larger models that are no larger in size the best was taken; tests are corrected for their number."
        budget, recovery = last_budget(models.compressed)["budget"].iloc[0], has_recovery(rows).any()
        text = f"After {budget}{', recovery included' if recovery else ''}: {'; '.join(texts)}. {chosen}"
        used = [model.rows for light, best, _ in contests for model in (best, light)]
        return judgement(gaps.values(), text + _alone(rows, contests), cells_of(*used))

    return judge


def _contests(rows: pd.DataFrame, column: str) -> list[tuple[_Model, _Model, int]]:
    """Each series but the largest: its smallest light model, the best larger one of at most its size, of how many."""
    order, models = by_size(rows), _models(rows, column)
    contests = []
    for place, name in enumerate(order[:-1]):
        light = [model for model in models if model.series == name and _is_light(model.rows)]
        if light:
            rival = min(light, key=lambda model: model.size)
            larger = [one for one in models if one.series in order[place + 1 :] and one.size <= rival.size]
            if larger:
                contests.append((rival, max(larger, key=lambda model: model.score), len(larger)))
    return contests


def _alone(rows: pd.DataFrame, contests: list[tuple[_Model, _Model, int]]) -> str:
    """Which smaller series no larger model was compressed to the size of."""
    left = [name for name in by_size(rows)[:-1] if name not in {light.series for light, _, _ in contests}]
    return f" No larger model was compressed to the size of {listed(left)}." if left else ""


def _is_light(rows: pd.DataFrame) -> bool:
    return bool((rows["bits"] >= LIGHT_BITS).all() and (rows["sparsity"] <= LIGHT_SPARSITY).all())


def _models(rows: pd.DataFrame, column: str) -> list[_Model]:
    """Recovered models of a shorter budget may fit into the last one: those of each budget are models of their own."""
    last = rows.loc[~has_recovery(rows), "budget"].unique()
    return [
        _Model(
            str(series),
            str(recipe) if budget in last else f"{recipe} after {budget}",
            float(group[column].mean()),
            float(group["score"].mean()),
            group,
        )
        for (series, recipe, budget), group in rows.groupby(["series", "recipe", "budget"], sort=False)
    ]


def _gap(models: ScoredModels, best: _Model, light: _Model, count: int) -> Difference:
    """Score of the larger model less that of the smaller one, its probability times the models it was chosen from."""
    gap = over_seeds(over_runs(best.rows, "score"), over_runs(light.rows, "score"), models.unit)
    return gap if gap.p is None else replace(gap, p=min(1.0, gap.p * count))


EQUAL_BYTES, EQUAL_PARAMETERS = (
    Claim(
        name,
        f"Of two models of equal {words}, a large one compressed heavily beats a small one compressed lightly.",
        f"{PAPER}, {figure}",
        judge_by(column),
    )
    for name, words, figure, column in (
        ("bytes", "file size", "figure 7", "file_bytes"),
        ("parameters", "non-zero parameters", "figure 2b", "nonzero_parameters"),
    )
)
