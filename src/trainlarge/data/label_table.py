"""The table of prepared rows with labels: where the texts of each row end, its label, and its place in a fixed draw."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainlarge.data.arrays import Integers
from trainlarge.data.split import hashed, normalized
from trainlarge.errors import UserError

FIRST_END, SECOND_END, LABEL, DRAW = "first_end", "second_end", "label", "draw"
"""Columns of the table: see ``ROW``."""
ROW = np.dtype([(FIRST_END, "<i8"), (SECOND_END, "<i8"), (LABEL, "<f8"), (DRAW, "<u8")])
"""One row: where the tokens of its first and of its second text end, its class or its number, and the draw of its first
text, by which rows are held out."""
LabelTable = NDArray[np.void]
"""``ROW`` [rows]."""


def draw_of(text: str) -> int:
    """The draw of a row with that first text, uniform below 2^64: the same whatever its white space.

    It has nothing to do with the hash that divides training from validation.
    """
    return hashed(f"selection {normalized(text)}")


def is_held_out(text: str, share: float) -> bool:
    """Whether a training row with that first text is held out to choose by: ``is_selection`` of one row."""
    return draw_of(text) < share * 2**64


def is_selection(table: LabelTable, share: float) -> NDArray[np.bool_]:
    """Which of the training rows are held out to choose by, [rows]: those whose draw is in the first ``share``."""
    return np.asarray(table[DRAW] < np.uint64(share * 2**64))


def training_rows(table: LabelTable, share: float) -> Integers | None:
    """Indices of the rows that are trained on, ascending; None where no row is held out.

    Raises:
        UserError: on ``task.selection_share``, when it holds out no row, or all.
    """
    if not share:
        return None
    trained = np.flatnonzero(~is_selection(table, share))
    if len(trained) in (0, len(table)):
        found = "none" if len(trained) else "all"
        allowed = f"0, or a share that holds out some of the {len(table)} training rows; this one holds out {found}"
        raise UserError("task.selection_share", share, allowed)
    return trained


@lru_cache(maxsize=64)
def training_count(path: Path, rows: int, share: float) -> int:
    """Rows that are trained on, of the ``rows`` of the table at ``path``, which is read where some are held out.

    Raises:
        OSError, ValueError: it cannot be read.
        UserError: as ``training_rows``.
    """
    if not share:
        return rows
    trained = training_rows(open_table(path), share)
    return rows if trained is None else len(trained)


def row_lengths(table: LabelTable, longest: int) -> Integers:
    """Tokens of each row as a model reads it, special ones included, at most ``longest``, [rows] int64."""
    middles, ends = table[FIRST_END], table[SECOND_END]
    starts = np.concatenate([[0], ends[:-1]])
    return np.asarray(np.minimum(ends - starts + 2 + (ends > middles), longest))


def open_table(path: Path) -> LabelTable:
    """A table on disk, mapped into memory.

    Raises:
        OSError, ValueError: it is none.
    """
    table: LabelTable = np.load(path, mmap_mode="r", allow_pickle=False)
    if table.dtype != ROW:
        raise ValueError(f"{path.name} has other columns")
    return table
