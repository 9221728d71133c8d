"""Facts about prepared text: how many rows have no text, and what both splits have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from trainlarge.config.data import Split
from trainlarge.data.arrays import TokenDtype
from trainlarge.data.corpus import Corpus, parts_of
from trainlarge.data.overlap import Overlap, OverlapCounter
from trainlarge.data.progress import Meter
from trainlarge.data.rows import RowCounts
from trainlarge.data.tokens import LONG_CHARACTERS, TokenCounts, write_parts


@dataclass(frozen=True)
class RowsBySplit:
    """What was read for each split: where one set of files gives both, the same twice."""

    train: RowCounts
    validation: RowCounts


@dataclass(frozen=True)
class SourceFacts:
    """What was read and written of one of ``data.sources``."""

    train: TokenCounts
    validation: TokenCounts
    rows: RowsBySplit


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
        read = [self.rows.train] if self.rows.train == self.rows.validation else [self.rows.train, self.rows.validation]
        for counts in read:
            if counts.without_text:
                yield f"data: {counts.without_text:,} of {counts.rows:,} rows have no text and are left out"
            if counts.repaired:
                yield f"data: {counts.repaired:,} of {counts.rows:,} rows hold what is no text, read as U+FFFD"
        if self.train.long_documents:
            long = f"{self.train.long_documents:,} training documents have {LONG_CHARACTERS:,} characters or more"
            yield f"data: {long}, the longest {self.train.longest or 0:,}"
        yield from _overlap_lines(self.overlap)


def write_splits(
    files: dict[Split, Path], source: Corpus, tokenizer: Tokenizer, dtype: TokenDtype, sep_id: int, meter: Meter
) -> TextFacts:
    """Write the token files of both splits, and look for the validation text in the training text on the way.

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
    sources = {name: SourceFacts(trains[name], validations[name], rows[name]) for name in parts if name}
    return TextFacts(train, validation, _summed(rows), counter.result(), sources)


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
