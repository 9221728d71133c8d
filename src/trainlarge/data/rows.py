"""Counts of the rows that were read, and of those that hold no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass
class RowCounts:
    """What was read of the files or the data set of a split."""

    rows: int = 0
    """Rows of tables, documents of plain text."""
    without_text: int = 0
    """Rows whose text is null, missing, empty or blank: they give no document."""
    repaired: int = 0
    """Rows in which U+FFFD stands for what is no text: half a surrogate pair, which no encoding can hold, or with
    ``data.invalid=replace`` bytes that are not in the encoding."""

    def add(self, other: RowCounts) -> None:
        """Count what was read of another part too."""
        self.rows += other.rows
        self.without_text += other.without_text
        self.repaired += other.repaired


def texts(entries: Iterable[str | None], counts: RowCounts) -> Iterator[str]:
    """The entries that hold text, all of them counted."""
    for entry in entries:
        counts.rows += 1
        if entry and not entry.isspace():
            yield entry
        else:
            counts.without_text += 1


def without_lone_surrogates(text: str, counts: RowCounts) -> str:
    """The text with U+FFFD in the place of each half of a surrogate pair, counted."""
    repaired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    counts.repaired += repaired != text
    return repaired
