"""Train cells that start from the checkpoint of another: columns of that cell, costs of both, and which were chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from trainlarge.config.canonical import canonical_json
from trainlarge.config.group import Plain
from trainlarge.config.plain import not_identity, with_added
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import tasks
from trainlarge.results.nested import Nested

PARENT_PREFIX = "parent_"
OF_PARENT = (
    *("part", "variant", "seed", "budget", "budget_value", "budget_unit"),
    *("loss", "step", "tokens", "flops", "train_seconds", "model_seconds"),
)
"""Columns of the cell that a cell started from which it has too, with ``PARENT_PREFIX``."""
CHOSEN_BY = ("optim.lr", "optim.peak_lr", "budget")
"""What the best is chosen of by selection scores: rate and budget."""
_NOT_IDENTITY = not_identity(TrainConfig)


def join_parents(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with the columns of those that they started from, NaN where that is no cell of the frame."""
    known = cells.set_index("cell")
    parents = known[list(OF_PARENT)].reindex(cells["checkpoint"])
    return cells.assign(**{PARENT_PREFIX + name: parents[name].to_numpy() for name in OF_PARENT})


def with_ancestors(cells: pd.DataFrame, column: str) -> pd.Series:
    """A column that counts training, of each cell and of all that it started from, as far as these are known."""
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
    """Whether each record has the best selection score of those that differ in ``CHOSEN_BY`` only.

    True where there are no such scores, and so nothing was chosen. Of equal scores the lower loss decides, then the id:
    the rule of ``sweep.best_of``.
    """
    configs, selections, ids = (records.values(name) for name in ("config", "selection", "cell"))
    if not any(isinstance(selection, dict) for selection in selections):
        return [True] * len(selections)
    keys = [_without_choice(config) if isinstance(config, dict) else "" for config in configs]
    best: dict[str, tuple[float, float, str]] = {}
    for key, cell, config, selection in zip(keys, ids, configs, selections, strict=True):
        if isinstance(config, dict) and isinstance(selection, dict):
            rank = (*_selection_rank(config, selection), str(cell))
            best[key] = min(best.get(key, rank), rank)
    return [key not in best or best[key][-1] == cell for key, cell in zip(keys, ids, strict=True)]


def _selection_rank(config: Mapping[str, Plain], selection: Mapping[str, Plain]) -> tuple[float, float]:
    """What sorts a cell among others, the best first: its score and its loss, infinite where it diverged."""
    group = config.get("task")
    task = tasks().get(str(group.get("name"))) if isinstance(group, dict) else None
    name = task.main_metric if task else "loss"
    score, loss = (_number(selection.get(key)) for key in (name, "loss"))
    is_higher_better = task is not None and task.metrics[name].higher_is_better
    return (-score if is_higher_better and math.isfinite(score) else score), loss


def _number(value: Plain) -> float:
    is_known = isinstance(value, (int, float)) and not math.isnan(value)
    return float(str(value)) if is_known else math.inf


def _without_choice(config: dict[str, Plain]) -> str:
    """What of a configuration is left where rate and budget are to be chosen, as text."""
    left: dict[str, Plain] = {}
    for key, value in with_added(TrainConfig, config).items():
        if key in _NOT_IDENTITY[""] or key in CHOSEN_BY:
            continue
        hidden = _NOT_IDENTITY.get(key, frozenset())
        left[key] = (
            {name: part for name, part in value.items() if name not in hidden and f"{key}.{name}" not in CHOSEN_BY}
            if isinstance(value, dict)
            else value
        )
    return canonical_json(left)
