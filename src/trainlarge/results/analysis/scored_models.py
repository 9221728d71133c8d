"""Trained and compressed models of one part of a study by the score that its task is judged by, more is better.

Accuracies and correlations are in points (hundredths), losses in their unit and negative. A run is what is repeated
with another seed: intervals are over runs, and hold for the evaluation set at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from trainlarge.results.analysis.evidence import Evidence
from trainlarge.results.frames import StudyFrames
from trainlarge.results.recipes import is_dense, keeps_shapes
from trainlarge.results.scores import direction, main_score
from trainlarge.results.series import by_size, last_budget
from trainlarge.results.study_parts import Part
from trainlarge.results.training_cost import SAME_COST, has_recovery, recovery_share

POINT = 1.0
"""A difference of a share that matters, in points, where the metric states none."""
CHANCE_ERRORS = 2.0
"""Standard errors by which a share must be above what one answer for all rows scores."""
PAPER_BITS, PAPER_SPARSITY = 4.0, 0.6
"""The recipes whose costs the paper compares most."""


@dataclass(frozen=True)
class Treatment:
    """One way to compress, the same for every size."""

    name: str
    """What it does: ``4 bits``, ``60 % pruned``."""
    rows: pd.DataFrame
    """Its compress cells, with ``score`` and ``cost``."""


class ScoredModels:
    """The models of a part and their scores."""

    def __init__(self, part: Part, evidence: Evidence | None = None) -> None:
        self.part = part
        self.evidence = evidence or Evidence(part.frames)
        self.column, self.metric = main_score(self.evidence.cells)

    @property
    def frames(self) -> StudyFrames:
        """Frames of the part, without cells that diverged."""
        return self.evidence.whole

    @property
    def are_scored(self) -> bool:
        """Whether the task is judged by another score than the loss, and models have one."""
        return self.column != "loss" and not self.cells.empty

    @property
    def is_share(self) -> bool:
        """Whether scores are shares, written in points."""
        return self.metric.unit == "1"

    @property
    def unit(self) -> str:
        """Unit of differences."""
        return "points" if self.is_share else self.metric.short_unit

    @property
    def margin(self) -> float:
        """A difference below this does not matter, in ``unit``."""
        scale = 100.0 if self.is_share else 1.0
        return scale * self.metric.negligible or POINT

    @property
    def order(self) -> list[str]:
        """Series, from the smallest to the largest."""
        return by_size(self.cells)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Train cells that have a score, with ``score``."""
        return self.with_scores(self.evidence.cells)

    @cached_property
    def at_chance(self) -> pd.DataFrame:
        """Models that are not clearly better than one answer for all rows: by two standard errors of a share.

        The error is that of the evaluation set, which all runs share. Of other metrics than shares nothing is said.

        Returns:
            ``series`` and ``budget`` of those whose mean over runs is at chance, with that mean as ``score`` and the
            ``baseline`` beside it.
        """
        name = f"baseline_{self.column}"
        if not self.is_share or name not in self.cells:
            return pd.DataFrame(columns=["series", "budget", "score", "baseline"])
        known = self.cells.assign(baseline=self._scaled(self.cells, name), rows=self.cells["evaluation_documents"])
        means = known.groupby(["series", "budget"], sort=False)[["score", "baseline", "rows"]].mean().reset_index()
        error = np.sqrt(means["baseline"] * (100.0 - means["baseline"]) / means["rows"].astype(float))
        rows: pd.DataFrame = means[means["score"] <= means["baseline"] + CHANCE_ERRORS * error]
        return rows

    @cached_property
    def compressed(self) -> pd.DataFrame:
        """Compress cells with ``score``, and with ``cost``: the score of the checkpoint less that."""
        rows = self.evidence.compressed if self.column == "loss" else self.evidence.known
        rows = self.with_scores(rows)
        return rows.assign(cost=self._dense(rows) - rows["score"])

    @cached_property
    def treatments(self) -> list[Treatment]:
        """Quantization nearest to 4 bits, pruning nearest to 60 %, without and with recovery; what every series has.

        Recovery counts where it trains every series for the same share of its training.
        """
        rows = self.compressed
        if rows.empty:
            return []
        shaped = rows[keeps_shapes(rows.assign(recover="none"))]
        rounded = shaped[shaped["sparsity"].eq(0) & shaped["quantize"].ne("none")]
        pruned = shaped[shaped["sparsity"].gt(0) & shaped["quantize"].eq("none")]
        bits, sparsity = _nearest(rounded["bits"], PAPER_BITS), _nearest(pruned["sparsity"], PAPER_SPARSITY)
        nearest = pruned[pruned["sparsity"].eq(sparsity)]
        return [
            *_treatment(f"{bits:g} bits", rounded[rounded["bits"].eq(bits)]),
            *_treatment(f"{100 * sparsity:g} % pruned", nearest[~has_recovery(nearest)]),
            *_treatment(f"{100 * sparsity:g} % pruned and recovered", _recovered_alike(nearest)),
        ]

    @property
    def last(self) -> pd.DataFrame:
        """Compress cells of the last budget that all series have."""
        return last_budget(self.compressed)

    def with_scores(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those of the rows that have a score, with ``score``."""
        return rows.assign(score=self._scaled(rows, self.column)).dropna(subset=["score"])

    def scaled(self, value: float) -> float:
        """A value of the metric as a score."""
        return -direction(self.evidence.cells, self.column) * (100.0 if self.is_share else 1.0) * value

    def _scaled(self, rows: pd.DataFrame, column: str) -> pd.Series:
        return self.scaled(1.0) * rows[column].astype(float)

    def _dense(self, rows: pd.DataFrame) -> pd.Series:
        """Scores of the checkpoints: as stage 2 measured them, else as training did."""
        trained = self._scaled(self.evidence.whole.cells, self.column).set_axis(self.evidence.whole.cells["cell"])
        known = rows["parent"].map(trained)
        again = rows[is_dense(rows)].groupby("parent")["score"].mean()
        known = rows["parent"].map(again).fillna(known)
        name = f"dense_{self.column}"
        return self._scaled(rows, name).fillna(known) if name in rows else known


def over_runs(rows: pd.DataFrame, value: str) -> tuple[float, ...]:
    """The mean of a column in each run."""
    return tuple(rows.groupby("seed")[value].mean())


def slope(x: pd.Series, y: pd.Series) -> float:
    """Slope of the straight line through points (least squares)."""
    return float(np.polyfit(x, y, 1)[0])


def _nearest(values: pd.Series, wanted: float) -> float:
    """The value that is the fewest doublings away; NaN where there is none."""
    distances = (np.log(values.astype(float)) - np.log(wanted)).abs()
    return float(values[distances.idxmin()]) if len(values) else float("nan")


def _recovered_alike(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with recovery, of recipes that train all series of a budget for the same share of their steps."""
    rows = rows[has_recovery(rows)]
    shares = recovery_share(rows).groupby([rows["recipe"], rows["budget"]])
    return rows[(shares.transform("max") - shares.transform("min")) < SAME_COST]


def _treatment(name: str, rows: pd.DataFrame) -> list[Treatment]:
    """Those of the recipes that every series has."""
    counts = rows.groupby("recipe")["series"].nunique()
    shared = rows[rows["recipe"].isin(counts[counts == rows["series"].nunique()].index)]
    return [] if shared.empty or shared["series"].nunique() < 1 else [Treatment(name, shared)]
