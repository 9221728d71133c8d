"""What pruning on the way of a training brings, against pruning once and training for as long."""

from __future__ import annotations

import pandas as pd

from trainlarge.config.method import METHODS
from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.models import Model, loss_difference, models_of
from trainlarge.results.recipes import SHAPE_SLOTS
from trainlarge.results.report.finding import Finding, listed
from trainlarge.results.training_cost import has_recovery, recovery_share

ONCE = "magnitude"
"""The method that prunes before the training."""
ALIKE = ["series", "budget", "sparsity", "recover", "recover_steps"]
"""What models have in common that are compared."""
MOST = 6
"""Comparisons that are told, those of the highest sparsities."""


def pruned_on_the_way(evidence: Evidence) -> list[Finding]:
    """For each sparsity: pruning in turns and pruning while the model trains, against once and the same training."""
    found = []
    for _, rows in _only_pruned(evidence.compressed).groupby(ALIKE, sort=True):
        once = _best(rows[rows["prune"].eq(ONCE)])
        others = [_best(of_one) for name, of_one in rows.groupby("prune", sort=True) if name != ONCE]
        if once and others:
            sentence = _sentence(evidence, rows, once, [one for one in others if one])
            found.append((float(rows["sparsity"].iloc[0]), sentence))
    return [finding for _, finding in sorted(found, key=lambda one: one[0], reverse=True)[:MOST]]


def _only_pruned(compression: pd.DataFrame) -> pd.DataFrame:
    """Rows that only prune and train, on from the weights of the checkpoint."""
    methods = [ONCE, *(name for name, kind in METHODS["prune"].items() if kind.needs_training)]
    unused = [compression[name].eq("none") for name in (*SHAPE_SLOTS, "quantize", "activations", "recover_rewind")]
    is_pruned = compression["prune"].isin(methods) & has_recovery(compression)
    return compression[pd.concat(unused, axis=1).all(axis=1) & is_pruned]


def _best(rows: pd.DataFrame) -> Model | None:
    """Of recipes of one method that of the lowest loss."""
    return min(models_of(rows, "nonzero_parameters"), key=lambda model: model.loss, default=None)


def _sentence(evidence: Evidence, rows: pd.DataFrame, once: Model, others: list[Model]) -> Finding:
    sparsity, share = float(rows["sparsity"].iloc[0]), float(recovery_share(rows).iloc[0])
    gaps = [loss_difference(evidence, once, other) for other in others]
    parts = []
    for other, gap in zip(others, gaps, strict=True):
        word, shown = ("less", gap) if gap.value >= 0 else ("more", gap.turned())
        parts.append(f"{other.recipe} loses {word} by {shown}")
    text = (
        f"{once.series} after {once.budget}, pruned to {100 * sparsity:.3g} % with {100 * share:.2g} % of its steps of "
        f"training: against {once.recipe} (+{once.loss_increase:.2f} {evidence.loss.short_unit}), {listed(parts)}."
    )
    return Finding(text, is_result=any(gap.low > 0 for gap in gaps))
