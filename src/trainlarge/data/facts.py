"""Facts about prepared text: what was read and written of each part, and what both splits have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenizers import Tokenizer

from trainlarge.config.data import Split
from trainlarge.data.arrays import TokenDtype
from trainlarge.data.corpus import Corpus, parts_of
from trainlarge.data.document_keys import Hashes
from trainlarge.data.overlap import Overlap, OverlapCounter, PartOverlap
from trainlarge.data.progress import Meter
from trainlarge.data.rows import RowCounts
from trainlarge.data.tokens import LONG_CHARACTERS, TokenCounts, write_parts
from trainlarge.sweep.records import TextRow, Use


@dataclass(frozen=True)
class RowsBySplit:
    """What was read for each split: where one set of files gives both, the same twice."""

    train: RowCounts
    validation: RowCounts

    @property
    def are_of_the_same_files(self) -> bool:
        """Whether one set of files was read twice: the same counts stand for both splits together."""
        return self.train == self.validation


@dataclass(frozen=True)
class SourceFacts:
    """What was read and written of one of ``data.sources``."""

    train: TokenCounts
    validation: TokenCounts
    rows: RowsBySplit
    overlap: PartOverlap | None = None
    """What it has in common with the training text of all sources; None where it was prepared before that was counted
    source by source."""

    def text_rows(self, name: str) -> list[TextRow]:
        """Its rows in the table of texts."""
        repeated, duplicates = (self.overlap.repeated, self.overlap.duplicates) if self.overlap else (None, None)
        return rows_of_splits(name, self.train, self.validation, self.rows, repeated, duplicates)


@dataclass(frozen=True)
class TextFacts:
    """Facts of one preparation."""

    train: TokenCounts
    """What was written for training."""
    validation: TokenCounts
    """What was written for validation."""
    rows: RowsBySplit
    """What was read."""
    overlap: Overlap
    """What the validation text has in common with the training text, and the training text with itself."""
    sources: Mapping[str, SourceFacts] = field(default_factory=dict)
    """The same of each of ``data.sources``, in the order of the token files."""

    def lines(self) -> Iterator[str]:
        """What a log should say of it."""
        yield f"data: {self.train.documents:,} documents train, {self.validation.documents:,} validate"
        for name, source in self.sources.items():
            share = f"{source.train.tokens:,} tokens of {source.train.documents:,} documents train"
            yield f"data: {name}: {share}, {source.validation.tokens:,} validate"
        rows = self.rows
        for counts in [rows.train] if rows.are_of_the_same_files else [rows.train, rows.validation]:
            if counts.without_text:
                yield f"data: {counts.without_text:,} of {counts.rows:,} rows have no text and are left out"
            if counts.repaired:
                yield f"data: {counts.repaired:,} of {counts.rows:,} rows hold what is no text, read as U+FFFD"
        if self.train.long_documents:
            long = f"{self.train.long_documents:,} training documents have {LONG_CHARACTERS:,} characters or more"
            yield f"data: {long}, the longest {self.train.longest or 0:,}"
        yield from _overlap_lines(self.overlap)

    def text_rows(self) -> list[TextRow]:
        """The table of texts: both splits as a whole, then those of each source."""
        overlap = self.overlap
        # Data from before repeated documents were counted has no training documents here.
        repeated = overlap.repeated if overlap.training_documents else None
        whole = rows_of_splits("", self.train, self.validation, self.rows, repeated, overlap.duplicates)
        return [*whole, *(row for name, source in self.sources.items() for row in source.text_rows(name))]


def rows_of_splits(
    name: str,
    train: TokenCounts,
    validation: TokenCounts,
    rows: RowsBySplit,
    repeated: int | None,
    duplicates: int | None,
) -> list[TextRow]:
    """The rows of both splits of one text in the table of texts.

    Args:
        name: of the source; empty for the whole.
        train: what was written for training.
        validation: what was written for validation.
        rows: what was read.
        repeated: training documents that are the same as one before them.
        duplicates: validation documents that stand in the training text.
    """
    held_out = row_of("validation", name, validation, None if rows.are_of_the_same_files else rows.validation)
    trained = row_of("train", name, train, rows.train)
    return [replace(trained, repeated_documents=repeated), replace(held_out, trained_documents=duplicates)]


def row_of(use: Use, name: str, written: TokenCounts, read: RowCounts | None) -> TextRow:
    """One row of the table of texts.

    Args:
        use: of the text.
        name: of the source, or of the evaluation text.
        written: what was written.
        read: what was read; None where that is counted elsewhere.
    """
    return TextRow(
        text=name,
        use=use,
        documents=written.documents,
        tokens=written.tokens,
        blank_rows=read.without_text if read else None,
        replaced_rows=read.repaired if read else None,
        long_documents=written.long_documents,
        longest=written.longest,
    )


def write_splits(
    files: dict[Split, Path], source: Corpus, tokenizer: Tokenizer, dtype: TokenDtype, sep_id: int, meter: Meter
) -> tuple[TextFacts, Hashes]:
    """Write the token files of both splits, and look for the validation text in the training text on the way.

    Returns:
        The facts, and what tells the training documents from others (``OverlapCounter.training_keys``).

    Args:
        files: where the tokens of each split go.
        sep_id: id that closes a document.
        meter: says how far it is.
    """
    parts, counter = parts_of(source), OverlapCounter()
    rows = {name: RowsBySplit(RowCounts(), RowCounts()) for name in parts}
    held_out = {
        name: counter.validation(meter.of("validation", part.documents("validation", rows[name].validation)))
        for name, part in parts.items()
    }
    validation, validations = write_parts(files["validation"], held_out, tokenizer, dtype, sep_id)
    seen = {
        name: counter.training(meter.of("training", part.documents("train", rows[name].train)))
        for name, part in parts.items()
    }
    train, trains = write_parts(files["train"], seen, tokenizer, dtype, sep_id)
    sources = {
        name: SourceFacts(trains[name], validations[name], rows[name], overlap)
        for name, overlap in zip(parts, counter.of_parts(), strict=True)
        if name
    }
    return TextFacts(train, validation, _summed(rows), counter.result(), sources), counter.training_keys()


def _summed(rows: Mapping[str, RowsBySplit]) -> RowsBySplit:
    whole = RowsBySplit(RowCounts(), RowCounts())
    for part in rows.values():
        whole.train.add(part.train)
        whole.validation.add(part.validation)
    return whole


def _overlap_lines(overlap: Overlap) -> Iterator[str]:
    if overlap.duplicates:
        yield (
            f"warning: {overlap.duplicates:,} of {overlap.validation_documents:,} validation documents stand in the "
            "training text too: their loss is partly memorized"
        )
    if overlap.repeated:
        yield f"data: {overlap.repeated:,} of {overlap.training_documents:,} training documents repeat one before them"
    if overlap.passages_in_training:
        share = f"{overlap.passages_in_training / overlap.passages:.1%}"
        yield f"data: {share} of the validation text, in passages of 50 characters, stands in the training text too"
