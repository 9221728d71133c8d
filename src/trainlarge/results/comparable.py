"""What must agree before numbers are compared."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from trainlarge.errors import UserError
from trainlarge.sweep.step_times import CONTRADICTED

LOSS = ("evaluation_fingerprint", "data_fingerprint", "vocab_size")
"""Losses are compared on one evaluation set, one corpus, one tokenizer."""
CLOCKS = ("device_name", "devices", "threads", "precision", "attention", "forward", "compile", "strategy")
"""Seconds are compared on one device, used in one way."""
SIZES = ("packing",)
"""Bytes of packed files are compared of one choice of encodings."""
MOST_VALUES = 7
"""Values of a column that one sentence names, beyond the first."""
CLOCK_COLUMNS = frozenset({"train_seconds", "model_seconds", "wall_seconds"})


def differences(frame: pd.DataFrame, columns: Collection[str]) -> str:
    """What the rows differ in, as one phrase such as ``threads (1 in 4 cells, 2 in 8)``; empty where they agree."""
    return " and ".join(_values(frame[column], column) for column in columns if frame[column].nunique(dropna=False) > 1)


def check_comparable(frame: pd.DataFrame, axes: Collection[str] = (), columns: Collection[str] = LOSS) -> None:
    """Refuse rows that differ in ``columns``, apart from those that are ``axes`` of the comparison.

    Raises:
        UserError: saying what differs.
    """
    differing = differences(frame, [column for column in columns if column not in axes])
    if differing:
        raise UserError(
            "cells", f"they differ in {differing}", "must agree in it; allow_mixed=True compares them anyway"
        )


def check_clocks(frame: pd.DataFrame, x: str) -> None:
    """Refuse an axis ``x`` in seconds over rows of several devices.

    Raises:
        UserError: saying what differs.
    """
    if x in CLOCK_COLUMNS:
        check_comparable(frame, columns=CLOCKS)


def timed(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells whose seconds are results.

    Those that had their device to themselves (``launcher.per_device=1``), were computed in one way throughout, and got
    the steps that their budget in seconds buys.
    """
    return cells[(cells["per_device"] == 1) & ~cells["mixed"].astype(bool) & ~missed(cells)]


def missed(cells: pd.DataFrame) -> pd.Series:
    """Which cells got too few steps for their budget in seconds."""
    return cells["budget_missed"] > CONTRADICTED


def on_axis(cells: pd.DataFrame, x: str) -> pd.DataFrame:
    """The cells that can stand on an axis ``x``: all, or in seconds the ``timed`` ones."""
    return timed(cells) if x in CLOCK_COLUMNS else cells


def _values(column: pd.Series, name: str) -> str:
    counts = column.astype(str).value_counts(sort=False).sort_index()
    (first, number), *others = counts.items()
    shown = [f", {value} in {count}" for value, count in others[:MOST_VALUES]]
    more = len(others) - len(shown)
    rest = "".join(shown) + (f", {more:,} more values" if more else "")
    return f"{name} ({first} in {number} cells{rest})"
