"""The training of compressed models: that of their checkpoint, and recovery training on top of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import pandas as pd

from trainlarge.results.series import last_budget

SAME_COST = 0.02
"""Costs that differ by less than this share are equal: a budget in seconds becomes a whole number of steps."""

RECOVERY: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = MappingProxyType(
    {
        "step": lambda rows: rows["recover_steps"],
        "tokens": lambda rows: rows["recover_steps"] * rows["tokens"] / rows["step"],
        "flops": lambda rows: rows["recover_flops"],
        "train_seconds": lambda rows: rows["recover_seconds"],
        "model_seconds": lambda rows: rows["recover_steps"] * rows["model_seconds"] / rows["step"],
    }
)
"""Column of the train cell -> how much of it recovery training took. In ``model_seconds`` a step of recovery counts as
much as one of the train cell."""


def training_cost(frame: pd.DataFrame, column: str) -> pd.Series:
    """A column with which training is counted, such as ``flops``: of compress cells with their recovery training.

    Args:
        frame: train cells, or compress cells.
        column: any column; one that does not count training is returned as it is.
    """
    if column not in RECOVERY or "recover_steps" not in frame:
        return frame[column]
    return frame[column] + RECOVERY[column](frame).fillna(0).astype(float)


def has_recovery(compression: pd.DataFrame) -> pd.Series:
    """Which compress cells were trained after pruning."""
    return compression["recover_steps"].fillna(0) > 0


def recovery_share(compression: pd.DataFrame) -> pd.Series:
    """Steps of recovery over those of the checkpoint."""
    return compression["recover_steps"].fillna(0) / compression["step"]


def at_last_budget(compression: pd.DataFrame) -> pd.DataFrame:
    """The compress cells that had as much training as the last common budget gives, recovery included.

    Without recovery those of checkpoints of that budget; with recovery those whose whole training is no longer, of
    whatever checkpoint. A longer one would be compared with models that were trained less.
    """
    last = last_budget(compression)
    whole = compression["budget_value"].astype(float) * (1 + recovery_share(compression))
    is_same_unit = compression["budget_unit"].eq(last["budget_unit"].iloc[0])
    fits = is_same_unit & (whole < (1 + SAME_COST) * float(last["budget_value"].iloc[0]))
    is_recovered = has_recovery(compression)
    return compression[(is_recovered & fits) | (~is_recovered & compression.index.isin(last.index))]
