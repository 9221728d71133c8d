"""Compressed models as findings compare them: one per series, budget and recipe, a mean over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.analysis.intervals import Difference, SeedMean, above_zero, difference
from trainlarge.results.recipes import DENSE
from trainlarge.results.training_cost import recovery_share

_MODEL = ("series", "budget_unit", "budget_value", "recipe", "compress_head")
"""What cells of one model agree in."""


@dataclass(frozen=True)
class Model:
    """A compressed model; numbers are means over seeds."""

    series: str
    """What it was before: shape and variant."""
    budget: str
    """How long its checkpoint was trained."""
    recipe: str
    """What compression did."""
    parameters: int
    """Parameters, embeddings included."""
    size: float
    """Its size, in the column that was asked for."""
    loss: float
    """Loss."""
    loss_increase: float
    """Loss less that of its checkpoint."""
    recovery: float
    """Steps of recovery training over those of the checkpoint."""
    cells: tuple[str, ...]
    """Its compress cells, one or more per seed."""

    @property
    def is_dense(self) -> bool:
        """Whether it is the checkpoint itself."""
        return self.recipe == DENSE


def models_of(rows: pd.DataFrame, size: str) -> list[Model]:
    """The models of some compress cells, in the order of the rows.

    Args:
        rows: compress cells.
        size: the column that is their size, such as ``file_bytes``.
    """
    means = (
        rows.assign(recovery=recovery_share(rows))
        .groupby(["series", "budget", "recipe"], sort=False)
        .agg(
            parameters=("parameters", "first"),
            size=(size, "mean"),
            loss=("loss", "mean"),
            loss_increase=("loss_increase", "mean"),
            recovery=("recovery", "mean"),
            cells=("cell", tuple),
        )
    )
    return [
        Model(**{str(name): value for name, value in row.items()}) for row in means.reset_index().to_dict("records")
    ]


def seed_means(rows: pd.DataFrame, columns: Sequence[str], measured: str) -> pd.DataFrame:
    """The same models as rows: each is its first compress cell, with means over its runs in ``columns``.

    Cells of one run, such as several finetunings of one pretrained model, count as one.

    Args:
        rows: compress cells.
        columns: numbers.
        measured: the one of them that has an error.

    Returns:
        With ``runs``, how many there are, and ``run_error``, the standard error of the mean of ``measured`` over runs;
        NaN for one run.
    """
    models = rows.groupby(list(_MODEL), sort=False, dropna=False).ngroup()
    runs = rows[list(columns)].astype(float).groupby([models, rows["seed"]]).mean().groupby(level=0)
    counts = runs.size()
    means = runs.mean().assign(runs=counts, run_error=runs[measured].std() / np.sqrt(counts))
    first = rows[~models.duplicated()]
    return first.assign(**{str(name): column.to_numpy() for name, column in means.items()})


def increase_means(rows: pd.DataFrame) -> pd.DataFrame:
    """``seed_means`` of loss increases, with ``error``: the mean of their standard errors over documents.

    In records of before, over rows. All seeds have the same documents, so that their errors do not cancel.
    """
    errors = rows["increase_document_standard_error"].fillna(rows["increase_standard_error"])
    return seed_means(rows.assign(error=errors), ["loss", "file_bytes", "loss_increase", "error"], "loss_increase")


def loss_difference(evidence: Evidence, left: Model, right: Model) -> Difference:
    """Loss of ``left`` less that of ``right``; no part of the tests of the report, since one was chosen by its loss."""
    first, second = (_estimate(evidence, model, "loss", "loss") for model in (left, right))
    gap = difference(first, second, evidence.compressed_sample)
    return gap if gap.p is None else replace(gap, p=None, why_not="chosen by its loss")


def cost_of(evidence: Evidence, model: Model) -> Difference:
    """Its loss increase with an interval."""
    return above_zero(_estimate(evidence, model, "loss_increase", "increase"), evidence.compressed_sample)


def _estimate(evidence: Evidence, model: Model, column: str, kind: str) -> SeedMean:
    """Mean over the seeds of a model; ``kind`` is what the losses per document call the column."""
    rows = evidence.compressed[evidence.compressed["cell"].isin(model.cells)]
    means = rows.groupby("seed")[column].mean()
    counts = rows["seed"].map(rows["seed"].value_counts())
    shares = [(cell, 1 / (count * len(means))) for cell, count in zip(rows["cell"], counts, strict=True)]
    draws = evidence.compressed_sample.draws(kind, [shares])
    return SeedMean(tuple(map(float, means)), None if draws is None else draws[0])
