"""Facts about a table of labelled rows: what was read of it, and what its rows have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from trainlarge.data.facts import RowsBySplit
from trainlarge.data.labelled_tables import LabelledRow
from trainlarge.data.rows import RowCounts
from trainlarge.data.split import hashed, normalized
from trainlarge.data.tokens import LONG_CHARACTERS
from trainlarge.sweep.records import TextRow


@dataclass
class RowLengths:
    """How long the texts of the rows of a split are."""

    longest: int = 0
    """Characters of the longest row, both texts of a pair together."""
    long_rows: int = 0
    """Rows of at least ``LONG_CHARACTERS`` characters."""

    def add(self, row: LabelledRow) -> None:
        """Count one more row."""
        length = len(row.text) + len(row.second or "")
        self.longest = max(self.longest, length)
        self.long_rows += length >= LONG_CHARACTERS


@dataclass(frozen=True)
class LabelledFacts:
    """What was read of a table, and what was found out about its rows."""

    rows: RowsBySplit
    """Rows that were read; those without text are those that lack a text or a label."""
    train: RowLengths
    """Of the training rows."""
    validation: RowLengths
    """Of the validation rows."""
    repeated: int
    """Training rows whose texts are those of a row before them."""

    def added_to(self, train: TextRow, held_out: TextRow) -> list[TextRow]:
        """The rows of both splits in the table of texts, with what was read."""
        read = [self.rows.train, None if self.rows.are_of_the_same_files else self.rows.validation]
        lengths = (self.train, self.validation)
        counted = [
            replace(
                row,
                blank_rows=counts.without_text if counts else None,
                replaced_rows=counts.repaired if counts else None,
                long_documents=of_split.long_rows,
                longest=of_split.longest,
            )
            for row, counts, of_split in zip((train, held_out), read, lengths, strict=True)
        ]
        return [replace(counted[0], repeated_documents=self.repeated), counted[1]]

    def lines(self) -> Iterator[str]:
        """What a log should say of it."""
        for counts in [self.rows.train] if self.rows.are_of_the_same_files else [self.rows.train, self.rows.validation]:
            if counts.without_text:
                yield f"data: {counts.without_text:,} of {counts.rows:,} rows lack a text or a label and are left out"
            if counts.repaired:
                yield f"data: {counts.repaired:,} of {counts.rows:,} rows hold what is no text, read as U+FFFD"
        if self.repeated:
            yield f"data: {self.repeated:,} training rows have the same texts as one before them"
        if self.train.long_rows:
            long = f"{self.train.long_rows:,} training rows have {LONG_CHARACTERS:,} characters or more"
            yield f"data: {long}, the longest {self.train.longest:,}"


@dataclass
class LabelledCounter:
    """Counts rows on their way: those of training first, then those of validation."""

    rows: RowsBySplit = field(default_factory=lambda: RowsBySplit(RowCounts(), RowCounts()))
    """What the reader counts."""
    train: RowLengths = field(default_factory=RowLengths)
    validation: RowLengths = field(default_factory=RowLengths)
    repeated: int = 0
    """Training rows so far whose texts are those of a row before them."""
    in_training: int = 0
    """Validation rows so far whose texts are together in a training row, whatever their white space."""
    _seen: set[int] = field(default_factory=set)

    def take(self, rows: Iterable[LabelledRow]) -> Iterator[LabelledRow]:
        """The same rows, taken up as those of training."""
        for row in rows:
            key = _key(row)
            self.repeated += key in self._seen
            self._seen.add(key)
            self.train.add(row)
            yield row

    def look(self, rows: Iterable[LabelledRow]) -> Iterator[LabelledRow]:
        """The same rows, looked for among those of training."""
        for row in rows:
            self.in_training += _key(row) in self._seen
            self.validation.add(row)
            yield row

    def facts(self) -> LabelledFacts:
        """What was found, when all rows are through."""
        return LabelledFacts(self.rows, self.train, self.validation, self.repeated)


def _key(row: LabelledRow) -> int:
    return hashed(f"{normalized(row.text)}\n{normalized(row.second or '')}")
