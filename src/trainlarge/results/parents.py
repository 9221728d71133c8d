"""Train cells that start from the checkpoint of another: columns of that cell, costs of both, and which were chosen."""

from __future__ import annotations

import math

import pandas as pd

from trainlarge.results.nested import Nested
from trainlarge.sweep.choice import RATE_AND_BUDGET, Rank, group_of, rank

PARENT_PREFIX = "parent_"
OF_PARENT = (
    *("part", "variant", "seed", "budget", "budget_value", "budget_unit"),
    *("loss", "step", "tokens", "flops", "train_seconds", "model_seconds"),
)
"""Columns of the cell that a cell started from which it has too, with ``PARENT_PREFIX``."""
_LAST = (math.inf, math.inf)
"""The rank of a cell without scores."""


def join_parents(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with the columns of those that they started from, NaN where that is no cell of the frame."""
    known = cells.set_index("cell")
    parents = known[list(OF_PARENT)].reindex(cells["checkpoint"])
    return cells.assign(**{PARENT_PREFIX + name: parents[name].to_numpy() for name in OF_PARENT})


def with_ancestors(cells: pd.DataFrame, column: str) -> pd.Series:
    """A column that counts training, of each cell and of all that it started from, as far as these are known."""
    if not cells["checkpoint"].any():
        return cells[column].astype(float)
    own, checkpoints = (cells.set_index("cell")[name] for name in (column, "checkpoint"))
    total, before = own.astype(float), checkpoints
    while before.isin(own.index).any():
        total = total + own.reindex(before).fillna(0.0).to_numpy()
        before = pd.Series(checkpoints.reindex(before).to_numpy(), index=own.index)
    return total.set_axis(cells.index)


def name_by_parents(cells: pd.DataFrame) -> pd.DataFrame:
    """Columns ``variant`` and ``series`` in which the variant of the checkpoint is named where a part has several."""
    named = cells[["shape", "variant", "series"]].copy()
    parents = cells.set_index("cell")["variant"].reindex(cells["checkpoint"]).set_axis(cells.index).fillna("")
    is_told = parents.groupby(cells["part"]).transform("nunique").gt(1) & parents.ne("")
    origin = ("from " + parents).where(is_told, "")
    for name in ("variant", "series"):
        named[name] = (named[name] + ", " + origin).str.removeprefix(", ").str.removesuffix(", ")
    return named


def chosen(records: Nested) -> list[bool]:
    """Whether each record has the best selection score of those that differ in rate and budget only.

    True where there are no such scores, and so nothing was chosen. Of equal scores the lower loss decides, then the id:
    the rule of ``sweep.best_of``.
    """
    configs, selections, ids = (records.values(name) for name in ("config", "selection", "cell"))
    if not any(isinstance(selection, dict) for selection in selections):
        return [True] * len(selections)
    keys = [group_of(config, RATE_AND_BUDGET) if isinstance(config, dict) else "" for config in configs]
    best: dict[str, tuple[Rank, str]] = {}
    for key, cell, config, selection in zip(keys, ids, configs, selections, strict=True):
        if isinstance(config, dict) and isinstance(selection, dict):
            own = rank(config, selection) or _LAST, str(cell)
            best[key] = min(best.get(key, own), own)
    return [key not in best or best[key][-1] == cell for key, cell in zip(keys, ids, strict=True)]
