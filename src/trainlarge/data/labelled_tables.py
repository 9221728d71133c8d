"""Rows of tables that have a label, single sentences or pairs, as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from trainlarge.config.data import SPLITS, Split
from trainlarge.data.formats import Reading
from trainlarge.data.rows import RowCounts
from trainlarge.data.text import TextFiles, read_entries
from trainlarge.errors import UserError


@dataclass(frozen=True)
class Columns:
    """Columns of a table of labelled rows; that of the text is ``data.text_column``."""

    label: str
    """Column of the label: text, or a whole number."""
    second_text: str | None = None
    """Column of the second text of a pair; None: rows have one text."""
    holds_numbers: bool = False
    """Whether labels are numbers, and not the names of classes."""


class LabelledRow(NamedTuple):
    """One row of a table."""

    text: str
    second: str | None
    label: str


def labelled_rows(
    files: TextFiles, columns: Columns, split: Split, counts: RowCounts | None = None
) -> Iterator[LabelledRow]:
    """Rows of one split that have a label and every text. Rows of the same first text are in the same split.

    Args:
        files: tables.
        columns: what is read next to the text.
        split: ``train`` or ``validation``.
        counts: counts the rows of the files on their way, and those that lack a text or the label.

    Raises:
        UserError: a file cannot be read, has no such column, or is no table.
    """
    require_tables(files)
    counts = RowCounts() if counts is None else counts
    for path in files.files_of(split):
        for entries in _entries(path, _readings(files, columns), counts):
            counts.rows += 1
            if not all(entry and not entry.isspace() for entry in entries):
                counts.without_text += 1
            elif files.holds(split, str(entries[0])):
                middle = entries[1] if columns.second_text else None
                yield LabelledRow(str(entries[0]), middle, str(entries[-1]).strip())


def _entries(path: Path, readings: Sequence[Reading], counts: RowCounts) -> Iterator[tuple[str | None, ...]]:
    """The entries of each row of a file in some columns; ``counts`` gets the rows that were repaired."""
    # Each reader hands one column on; all of them see every row.
    own = [RowCounts() for _ in readings]
    columns = [read_entries(path, reading, count) for reading, count in zip(readings, own, strict=True)]
    replaces = readings[0].errors == "replace"
    for entries in zip(*columns, strict=True):
        counts.repaired += replaces and any(entry and "\ufffd" in entry for entry in entries)
        yield entries
    if not replaces:
        # Halves of surrogate pairs, which readers find in a text and not in a row.
        counts.repaired += sum(count.repaired for count in own)


def require_tables(files: TextFiles) -> None:
    """Raise UserError for a file without columns."""
    for path in files.files + files.validation_files:
        if not files.has_columns(path):
            raise UserError("data.files", path, "tables with a column of labels: .jsonl, .json, .csv, .tsv or .parquet")


def look_at_rows(files: TextFiles, columns: Columns) -> None:
    """Read the first row of each split, and each file up to the first entry of every column.

    Raises:
        UserError: as ``labelled_rows``, or a split has no row.
    """
    for split in SPLITS:
        if next(labelled_rows(files, columns, split), None) is None:
            raise no_rows(split)
    for path in files.files + files.validation_files:
        for reading in _readings(files, columns):
            next(filter(None, read_entries(path, reading, RowCounts())), None)


def _readings(files: TextFiles, columns: Columns) -> tuple[Reading, ...]:
    """How each column is read: the text, the second text where there is one, the label."""
    reading = files.reading
    label = replace(
        reading,
        text_column=columns.label,
        key="task.label_column",
        takes_numbers=True,
        takes_fractions=columns.holds_numbers,
    )
    second = replace(reading, text_column=columns.second_text or "", key="task.second_text_column")
    return (reading, second, label) if columns.second_text else (reading, label)


def no_rows(split: Split) -> UserError:
    """The error where a split has no row."""
    return UserError("data.files", split, "files with rows for both splits that have a text and a label")
