"""Made-up train cells with losses per document whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import made
from trainlarge.results.analysis.seed_lines import SeedLines
from trainlarge.results.document_losses import DocumentSums, Sample

AXIS = "model_seconds"


def simulated_lines(
    draw: np.random.Generator,
    truth: dict[str, float],
    seeds: int,
    seed_noise: float = 0.05,
    document_noise: float = 0.15,
    budgets: tuple[float, ...] = (10.0, 40.0),
) -> SeedLines:
    """Lines of series whose true loss is 3 nats and ``truth``, the same at each budget.

    Documents are drawn anew: as unequal as in a real evaluation set, each harder or easier for all series, and for each
    series by itself. Runs of a series differ by ``seed_noise``, and by a part of it between budgets.
    """
    predictions = draw.permutation(made.PREDICTIONS).astype(float)
    count, rows, sample = len(predictions), [], Sample()
    hard = draw.normal(0, 0.6, count)
    for size, (name, above) in enumerate(truth.items()):
        own = draw.normal(0, document_noise, count)
        for seed in range(seeds):
            run = draw.normal(0, 0.8 * seed_noise)
            for budget in budgets:
                noise = run + draw.normal(0, 0.6 * seed_noise) + draw.normal(0, 0.03, count)
                losses = predictions * (3 + above + hard + own + noise)
                cell = f"{name}-{seed}-{budget:g}"
                rows.append(_row(cell, name, size, seed, budget, losses.sum() / predictions.sum()))
                sample.add(cell, DocumentSums(list(range(count)), predictions, losses))
    return SeedLines(pd.DataFrame(rows), AXIS, sample)


def _row(cell: str, series: str, size: int, seed: int, budget: float, loss: float) -> dict[str, Any]:
    return {
        "cell": cell, "series": series, "parameters": size, "seed": seed, "budget_unit": "s", "budget_value": budget,
        AXIS: budget, "loss": loss,
    }  # fmt: skip
