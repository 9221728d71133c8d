"""The text column of a table of separated values, every field taken as text as it is written."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainlarge.data.formats import Reading, TextFormat
from trainlarge.data.rows import RowCounts
from trainlarge.data.streams import open_lines
from trainlarge.errors import UserError

LARGEST_FIELD = 1 << 30
"""Characters. The library's own limit, 131,072, is less than a book."""
_READS = frozenset({"text_column", "encoding", "invalid", "separator"})


def csv_entries(path: Path, reading: Reading, _counts: RowCounts, separator: str) -> Iterator[str | None]:
    """The text of each row; the first row names the columns.

    Blank lines are no rows; empty fields behind the last column, which a separator at the end of each row makes, are
    dropped.

    Args:
        separator: character between fields where ``reading`` says nothing of it.

    Raises:
        UserError: there is no such column, or there are two.
        ValueError: a row has more or fewer fields than the header, or a quote is never closed.
    """
    csv.field_size_limit(LARGEST_FIELD)
    rows = enumerate(_rows(path, reading, reading.separator or separator))
    _, (_, header) = next(rows, (0, (0, None)))
    if header is None:
        return
    position = _position(header, reading, path)
    for number, (line, fields) in rows:
        if len(fields) < len(header) or any(fields[len(header) :]):
            where = f"row {number} (it ends in line {line})"
            raise ValueError(f"{where} has {len(fields)} fields, the header {len(header)}")
        yield fields[position]


@dataclass
class _Lines:
    """Lines that know whether more of them were asked for than there are."""

    lines: Iterator[str]
    is_exhausted: bool = False

    def __iter__(self) -> Iterator[str]:
        yield from self.lines
        self.is_exhausted = True


def _rows(path: Path, reading: Reading, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line in which each ends."""
    source = _Lines(open_lines(path, reading.encoding, newline="", errors=reading.errors))
    reader = csv.reader(source, delimiter=separator)
    try:
        for fields in reader:
            # A row is complete before another line is asked for, unless the file ends within quotes.
            if source.is_exhausted:
                raise ValueError("a quote of the last row is never closed")
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _position(header: list[str], reading: Reading, path: Path) -> int:
    column, key = reading.text_column, reading.key
    if header.count(column) == 1:
        return header.index(column)
    if column in header:
        raise UserError(key, column, f"a column that {path} has once; it has {header.count(column)} of that name")
    hint = "" if len(header) > 1 else "; or another data.separator"
    raise UserError(key, column, f"one of the columns {', '.join(header)}, of {path}{hint}")


CSV = TextFormat((".csv",), "from_csv", partial(csv_entries, separator=","), _READS, separator=",")
TSV = TextFormat((".tsv",), "from_tsv", partial(csv_entries, separator="\t"), _READS, separator="\t")
