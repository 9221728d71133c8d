"""Which series a report compares and draws as lines: all where they are few, else those with the best scores.

The score is the one that the task is judged by: the loss of language models, the accuracy of classifiers.

Pairs grow with the square of the series, and nobody reads a sentence about a thousand names. What is left out of
sentences still stands in figures and files, and is counted where many comparisons are corrected for.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from trainlarge.results.analysis.frontier import frontier
from trainlarge.results.comparable import on_axis
from trainlarge.results.scores import direction, main_score
from trainlarge.results.series import by_size

TRAINING_AXES = ("model_seconds", "flops", "step")
"""What sizes are compared against."""
MOST_SERIES = 12
"""Series that are compared; as many can be told apart in a figure."""


def contenders(cells: pd.DataFrame) -> list[str]:
    """The series that are best at a budget, then those most often on a frontier, then those of best rank, by size.

    Args:
        cells: train cells with a score.
    """
    name, _ = main_score(cells)
    # Less is better, as of a loss.
    scored = cells.assign(score=direction(cells, name) * cells[name].astype(float))
    means = scored.groupby(["budget_unit", "budget_value", "series"])["score"].mean()
    ranks = means.groupby(["budget_unit", "budget_value"]).rank(method="first")
    best = pd.DataFrame({"rank": ranks, "score": means}).groupby("series").min()
    fronts = [frontier(on_axis(cells, x), x, name)["series"] for x in TRAINING_AXES]
    best["points"] = pd.concat(fronts).value_counts().reindex(best.index).fillna(0)
    best["behind"] = best["rank"] > 1
    ordered = best.sort_values(["behind", "points", "rank", "score"], ascending=[True, False, True, True])
    return _few(cells, ordered.index.to_numpy(str))


def compressed_contenders(compression: pd.DataFrame) -> list[str]:
    """Of compressed models, the series with the most points of the frontier, then those with the best scores.

    Args:
        compression: compress cells that may be compared.
    """
    name, _ = main_score(compression)
    points = frontier(compression, "file_bytes", name)["series"].value_counts()
    scored = compression.assign(score=direction(compression, name) * compression[name].astype(float))
    best = scored.groupby("series")["score"].min().to_frame()
    best["points"] = points.reindex(best.index).fillna(0)
    return _few(compression, best.sort_values(["points", "score"], ascending=[False, True]).index.to_numpy(str))


def _few(frame: pd.DataFrame, ranked: np.typing.NDArray[np.str_]) -> list[str]:
    """The first of ``ranked``, in order of size."""
    chosen = frame[frame["series"].isin(ranked[:MOST_SERIES])]
    return by_size(chosen)


def pairs_left_out(count: int, compared: int) -> int:
    """Pairs among ``count`` series that are none among the ``compared`` ones of them."""
    return count * (count - 1) // 2 - compared * (compared - 1) // 2
