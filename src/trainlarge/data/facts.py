"""Facts about prepared text: how many rows have no text, and what both splits have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from trainlarge.config.data import Split
from trainlarge.data.arrays import TokenDtype
from trainlarge.data.corpus import Corpus
from trainlarge.data.overlap import Overlap, OverlapCounter
from trainlarge.data.rows import RowCounts
from trainlarge.data.tokens import TokenCounts, write_tokens


@dataclass(frozen=True)
class RowsBySplit:
    """What was read for each split: where one set of files gives both, the same twice."""

    train: RowCounts
    validation: RowCounts


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
    """What the validation text has in common with the training text."""

    def lines(self) -> Iterator[str]:
        """What a log should say of it."""
        yield f"data: {self.train.documents:,} documents train, {self.validation.documents:,} validate"
        read = [self.rows.train] if self.rows.train == self.rows.validation else [self.rows.train, self.rows.validation]
        for counts in read:
            if counts.without_text:
                yield f"data: {counts.without_text:,} of {counts.rows:,} rows have no text and are left out"
            if counts.repaired:
                yield f"data: {counts.repaired:,} of {counts.rows:,} rows hold half a character, read as U+FFFD"
        yield from _overlap_lines(self.overlap)


def write_splits(
    files: dict[Split, Path], source: Corpus, tokenizer: Tokenizer, dtype: TokenDtype, sep_id: int
) -> TextFacts:
    """Write the token files of both splits, and look for the validation text in the training text on the way.

    Args:
        files: where the tokens of each split go.
        sep_id: id that closes a document.
    """
    rows, counter = RowsBySplit(RowCounts(), RowCounts()), OverlapCounter()
    held_out = counter.validation(source.documents("validation", rows.validation))
    validation = write_tokens(files["validation"], held_out, tokenizer, dtype, sep_id)
    seen = counter.training(source.documents("train", rows.train))
    train = write_tokens(files["train"], seen, tokenizer, dtype, sep_id)
    return TextFacts(train, validation, rows, counter.result())


def _overlap_lines(overlap: Overlap) -> Iterator[str]:
    if overlap.duplicates:
        yield (
            f"warning: {overlap.duplicates:,} of {overlap.validation_documents:,} validation documents stand in the "
            "training text too: their loss is partly memorized"
        )
    if overlap.passages_in_training:
        share = f"{overlap.passages_in_training / overlap.passages:.1%}"
        yield f"data: {share} of the validation text, in passages of 50 characters, stands in the training text too"
