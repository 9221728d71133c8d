"""The trade of steps against tokens by the batch size: (S / S_min - 1)(E / E_min - 1) = 1.

S steps and E tokens reach a loss with a batch of B = E / S tokens, so that S = S_min (1 + B_crit / B) with the critical
batch B_crit = E_min / S_min (McCandlish et al. 2018, arXiv 1812.06162): far below it a larger batch saves steps and
costs hardly any tokens, far above it a larger batch costs tokens and saves hardly any steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainlarge.errors import UserError
from trainlarge.results.analysis.intervals import LEVEL
from trainlarge.results.analysis.t_distribution import quantile
from trainlarge.results.frames import StudyFrames

Floats = NDArray[np.float64]
LEAST_BATCHES = 3
"""Different batches that a fit of two numbers needs, for one to be left over."""
SEARCHED = 12.0
"""The critical batch is looked for from exp(-12) of the smallest batch to exp(12) of the largest."""
GRID = 4001
REFINEMENTS = 60


@dataclass(frozen=True)
class CriticalBatch:
    """A fit; numbers are NaN where the status is ``too few batches``."""

    status: str
    """``ok``; ``one-sided``: the interval has no lower or no upper end, as all batches lie on one side of the critical
    one; ``too few batches``."""
    least_steps: float
    """S_min: steps that a batch without end would need."""
    least_tokens: float
    """E_min: tokens that a batch towards nothing would need."""
    critical_batch: float
    """E_min / S_min, in tokens."""
    interval: tuple[float, float]
    """95 % interval of the critical batch; 0 or infinity for an end that it does not have."""
    r_squared: float
    """Share of the variance of log steps that the fit explains."""


def fit_critical_batch(batches: Sequence[float], steps: Sequence[float]) -> CriticalBatch:
    """Fit by least squares of log steps; the interval is where the profile likelihood allows the critical batch to be.

    Args:
        batches: tokens per step of each run.
        steps: optimizer steps with which each run reached the loss.
    """
    batch, log_steps = np.asarray(batches, float), np.log(np.asarray(steps, float))
    if len(np.unique(batch)) < LEAST_BATCHES:
        unknown = float("nan")
        return CriticalBatch("too few batches", unknown, unknown, unknown, (0.0, float("inf")), unknown)
    grid = np.linspace(np.log(batch.min()) - SEARCHED, np.log(batch.max()) + SEARCHED, GRID)
    errors = np.array([_squared_error(point, batch, log_steps) for point in grid])
    best = _minimum(grid, int(errors.argmin()), batch, log_steps)
    least = _squared_error(best, batch, log_steps)
    limit = least * (1 + quantile(LEVEL, len(batch) - 2) ** 2 / (len(batch) - 2))
    # Where the squared error is above the limit on either side; if nowhere in the grid, the interval has no end there.
    outside = grid[errors > limit]
    below, above = outside[outside < best], outside[outside > best]
    interval = (
        _end(float(below[-1]), best, limit, batch, log_steps) if len(below) else 0.0,
        _end(float(above[0]), best, limit, batch, log_steps) if len(above) else float("inf"),
    )
    least_steps = float(np.exp(np.mean(log_steps - _excess(best, batch))))
    status = "ok" if interval[0] > 0 and np.isfinite(interval[1]) else "one-sided"
    spread = float(((log_steps - log_steps.mean()) ** 2).sum())
    explained = 1 - least / spread if spread else float("nan")
    critical = float(np.exp(best))
    return CriticalBatch(status, least_steps, least_steps * critical, critical, interval, explained)


def steps_to_loss(frames: StudyFrames, target: float, without_warmup: bool = False) -> pd.DataFrame:
    """How many steps and tokens each run needed to reach a loss while its rate was constant.

    Taken from the trunk of each curve, between its points straight in log steps, so that the decay of a budget plays no
    part. Runs that do not reach it, or are below it at their first point, are left out.

    Args:
        frames: a study that varies ``optim.batch``.
        target: evaluation loss, in the unit of the task's loss.
        without_warmup: count the steps of the warm-up, whose rate rises from 0, as half as many. Every run has the same
            number of them, so that they lengthen the runs of large batches most and make the critical batch too small.

    Returns:
        ``cell``, ``width``, ``depth``, ``seed``, ``batch`` (tokens), ``peak_lr``, ``steps`` and ``tokens``; of cells
        that share a trunk, the one with the longest.
    """
    described = frames.cells.set_index("cell")[["width", "depth", "series", "seed", "batch", "peak_lr", "warmup_steps"]]
    trunks = frames.curves[frames.curves["part"] == "trunk"].sort_values("step")
    steps_of = {cell: _crossing(rows, target) for cell, rows in trunks.groupby("cell")}
    reached = {cell: steps for cell, steps in steps_of.items() if steps is not None}
    frame = described.loc[list(reached)].assign(steps=list(reached.values())).reset_index()
    frame["length"] = frame["cell"].map(trunks.groupby("cell")["step"].max())
    frame = frame.sort_values(["batch", "peak_lr", "length"]).drop_duplicates(["series", "seed"], keep="last")
    if without_warmup:
        frame["steps"] -= np.minimum(frame["steps"], frame["warmup_steps"]) / 2
    frame["tokens"] = frame["steps"] * frame["batch"]
    columns = ["cell", "width", "depth", "seed", "batch", "peak_lr", "steps", "tokens"]
    return frame[columns].sort_values(["width", "depth", "batch", "peak_lr", "seed"], ignore_index=True)


def best_rates(reached: pd.DataFrame) -> pd.DataFrame:
    """The runs of each shape and batch with the learning rate that needs the fewest steps, the mean over seeds.

    Args:
        reached: what :func:`steps_to_loss` returns.

    Returns:
        Those rows, with ``on_edge``: whether the rate is the smallest or largest of several, so that a better one may
        lie outside.
    """
    keys = ["width", "depth", "batch"]
    means = reached.groupby([*keys, "peak_lr"], as_index=False)["steps"].mean()
    best = means.loc[means.groupby(keys)["steps"].idxmin(), [*keys, "peak_lr"]]
    tried = means.groupby(keys)["peak_lr"].agg(["min", "max", "count"]).reset_index()
    best = best.merge(tried, on=keys)
    is_end = (best["peak_lr"] == best["min"]) | (best["peak_lr"] == best["max"])
    best = best.assign(on_edge=is_end & (best["count"] > 1))[[*keys, "peak_lr", "on_edge"]]
    return reached.merge(best, on=[*keys, "peak_lr"])


def critical_batches(
    frames: StudyFrames, target: float, without_warmup: bool = False
) -> dict[tuple[int, int], CriticalBatch]:
    """(width, depth) -> the fit at a loss, each batch with its best learning rate.

    Args:
        frames, target, without_warmup: as for :func:`steps_to_loss`.

    Raises:
        UserError: when no run reaches the loss.
    """
    reached = steps_to_loss(frames, target, without_warmup)
    if reached.empty:
        lowest = frames.curves.loc[frames.curves["part"] == "trunk", "loss"].min()
        raise UserError(
            "target", target, f"a loss that a trunk reaches after its first point; the lowest is {lowest:.3f}"
        )
    fits = {}
    for _, rows in best_rates(reached).groupby(["width", "depth"]):
        width, depth = rows[["width", "depth"]].iloc[0].tolist()
        fits[width, depth] = fit_critical_batch(rows["batch"].tolist(), rows["steps"].tolist())
    return fits


def _crossing(rows: pd.DataFrame, target: float) -> float | None:
    """Steps at which the loss first is ``target``."""
    losses, steps = rows["loss"].to_numpy(float), np.log(rows["step"].to_numpy(float))
    below = np.flatnonzero(losses <= target)
    if not len(below) or below[0] == 0:
        return None
    after, before = below[0], below[0] - 1
    share = (losses[before] - target) / (losses[before] - losses[after])
    return float(np.exp(steps[before] + share * (steps[after] - steps[before])))


def _excess(log_critical: float, batch: Floats) -> Floats:
    """log(1 + B_crit / B) of each batch."""
    excess: Floats = np.log1p(np.exp(log_critical) / batch)
    return excess


def _squared_error(log_critical: float, batch: Floats, log_steps: Floats) -> float:
    """Squared error of the best S_min for that critical batch, which is a mean."""
    residual = log_steps - _excess(log_critical, batch)
    return float(((residual - residual.mean()) ** 2).sum())


def _minimum(grid: Floats, index: int, batch: Floats, log_steps: Floats) -> float:
    """The least squared error around a point of the grid, by thirds."""
    low, high = float(grid[max(index - 1, 0)]), float(grid[min(index + 1, len(grid) - 1)])
    for _ in range(REFINEMENTS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _squared_error(left, batch, log_steps) < _squared_error(right, batch, log_steps):
            high = right
        else:
            low = left
    return (low + high) / 2


def _end(outside: float, inside: float, limit: float, batch: Floats, log_steps: Floats) -> float:
    """Where the squared error crosses ``limit``, by halves."""
    for _ in range(REFINEMENTS):
        middle = (outside + inside) / 2
        if _squared_error(middle, batch, log_steps) > limit:
            outside = middle
        else:
            inside = middle
    return float(np.exp(inside))
