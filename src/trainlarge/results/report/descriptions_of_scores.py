"""What the figures of scores show, in a few sentences, for those who do not see them."""

from __future__ import annotations

from trainlarge.results.analysis.scored_models import ScoredModels
from trainlarge.results.claims.claim import score_text
from trainlarge.results.report.figures_of_scores import quantized, weight_changes
from trainlarge.results.report.finding import counted, listed
from trainlarge.results.scores import ANY_TASK
from trainlarge.results.series import by_size
from trainlarge.results.units import significant
from trainlarge.results.weight_changes import MODULES


def pretraining_description(models: ScoredModels) -> str:
    """What ``pretraining_figure`` shows."""
    parts = []
    for series in models.order:
        rows = models.cells[models.cells["series"] == series]
        means = (
            rows.groupby(["budget_unit", "budget_value"])[["parent_loss", "score"]].mean().sort_values("parent_loss")
        )
        first, last = means.iloc[-1], means.iloc[0]
        parts.append(
            f"{series} from {score_text(models, first['score'])} at {first['parent_loss']:.2f} to "
            f"{score_text(models, last['score'])} at {last['parent_loss']:.2f}"
        )
    unit = ANY_TASK["loss"].short_unit
    return f"Line chart of {models.metric.meaning} against pretraining loss in {unit}: {listed(parts)}."


def convergence_description(models: ScoredModels) -> str:
    """What ``convergence_figure`` shows."""
    treatment = quantized(models)
    rows = models.compressed.iloc[:0] if treatment is None else treatment.rows
    costs = rows.groupby(["series", "budget_unit", "budget_value"])["cost"].mean()
    parts = [
        f"{series} {costs[series].iloc[0]:+.2f} after the shortest and {costs[series].iloc[-1]:+.2f} after the longest"
        for series in by_size(rows)
    ]
    name = treatment.name if treatment else "quantization"
    return f"Line chart of {models.metric.meaning} along training. {name} cost in {models.unit}: {listed(parts)}."


def weight_description(models: ScoredModels) -> str:
    """What ``weight_figure`` shows."""
    changes = weight_changes(models)
    ranges = changes.groupby(["treatment", "module"])["mean_absolute_change"].agg(["min", "max"])
    parts = []
    for kind in changes["treatment"].unique():
        ends = ranges.loc[kind].reindex(MODULES).dropna()
        modules = [
            f"{module} {significant(low)} to {significant(high)}" for module, low, high in ends.itertuples(name=None)
        ]
        parts.append(f"{kind}: {listed(modules)}")
    shapes = counted(changes["shape"].nunique(), "shape", "shapes")
    return f"Line charts of the mean change of a weight by module, {shapes}. {'; '.join(parts)}."
