"""What each figure shows, in a few sentences: its text alternative for those who do not see it."""

from __future__ import annotations

import pandas as pd

from trainlarge.config.metric import Metric
from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.analysis.models import increase_means, seed_means
from trainlarge.results.comparable import missed, on_axis
from trainlarge.results.recipes import is_dense, keeps_shapes, same_task
from trainlarge.results.report.finding import counted, listed
from trainlarge.results.scores import direction, score_text, scores
from trainlarge.results.series import last_budget
from trainlarge.results.units import scale_of


def training_description(cells: pd.DataFrame, x: str, y: str = "loss") -> str:
    """What ``training_figure`` shows."""
    rows, metric, place = on_axis(cells, x), scores(cells)[y], scale_of(x)
    best = frontier(rows, x, y)
    count = counted(rows["series"].nunique(), "series", "series")
    begun = (
        f"Line chart of {metric.meaning} against {place.words}: {counted(len(rows), 'checkpoint', 'checkpoints')} of "
        f"{count}. On the frontier"
    )
    return f"{begun} {_from_to(best, x, y, metric)}."


def size_description(cells: pd.DataFrame, y: str = "loss") -> str:
    """What ``size_figure`` shows."""
    rows, metric, sign = cells[~missed(cells)], scores(cells)[y], direction(cells, y)
    means = rows.groupby(["budget_unit", "budget_value", "budget", "shape"])[y].mean().reset_index()
    best = means.loc[(sign * means[y]).groupby([means["budget_unit"], means["budget_value"]]).idxmin()]
    winners = listed(
        f"{row['shape']} after {row['budget']} ({_value(metric, row[y])})" for row in best.to_dict("records")
    )
    sizes = counted(rows["shape"].nunique(), "shape", "shapes")
    budgets = counted(len(best), "budget", "budgets")
    return f"Line chart of {metric.meaning} against parameters, {sizes} after {budgets}. Best: {winners}."


def bytes_description(compression: pd.DataFrame, size: str = "file_bytes", y: str = "loss") -> str:
    """What ``bytes_figure`` shows."""
    rows = seed_means(same_task(compression).dropna(subset=["shape", y]), [size, y], y)
    metric, dense = scores(rows)[y], rows[is_dense(rows)].sort_values(y, ascending=direction(rows, y) > 0)
    models = counted(len(rows), "model", "models")
    seeds = ", means over seeds" if rows["runs"].max() > 1 else ""
    text = (
        f"Scatter chart of {metric.meaning} against {scale_of(size).words}: {models} of "
        f"{counted(rows['shape'].nunique(), 'shape', 'shapes')}{seeds}. On the frontier "
        f"{_from_to(frontier(rows, size, y), size, y, metric)}."
    )
    if dense.empty:
        return text
    best = dense.iloc[0]
    where = f"{_value(metric, best[y])} at {scale_of(size).write(best[size])}"
    return f"{text} The best dense model, {best['series']}, has {where}."


def increase_description(compression: pd.DataFrame) -> str:
    """What ``increase_figure`` shows."""
    known = same_task(compression).dropna(subset=["shape"])
    rows = increase_means(last_budget(known[keeps_shapes(known)]))
    quantized, pruned = rows[(rows["sparsity"] == 0) & (rows["bits"] < 32)], rows[rows["sparsity"] > 0]
    parts = [_increases(quantized, "bits", "{:g} bit"), _increases(pruned[pruned["bits"] == 32], "sparsity", "{:.0%}")]
    unit = scores(rows)["loss"].short_unit
    what = "; ".join(filter(None, parts)) or "nothing but dense models"
    return f"Two line charts of the loss increase in {unit}, the best and the worst shape of each point: {what}."


def _increases(rows: pd.DataFrame, column: str, write: str) -> str:
    """The range over shapes of the lowest increase at each value of a column."""
    best = rows.groupby([column, "shape"])["loss_increase"].min().groupby(column)
    ends = zip(best.min().items(), best.max(), strict=True)
    return ", ".join(f"{write.format(value)} {low:+.3f} to {high:+.3f}" for (value, low), high in ends)


def _from_to(best: pd.DataFrame, x: str, y: str, metric: Metric) -> str:
    """Where a frontier begins and ends."""
    first, last, write = best.iloc[0], best.iloc[-1], scale_of(x).write
    start = f"{_value(metric, first[y])} at {write(first[x])} ({first['series']})"
    if len(best) == 1:
        return f"stands one point, {start}"
    return f"it goes from {start} to {_value(metric, last[y])} at {write(last[x])} ({last['series']})"


def _value(metric: Metric, value: float) -> str:
    """A score with its unit."""
    return score_text(metric, value) if metric.unit == "1" else f"{value:.2f} {metric.short_unit}"
