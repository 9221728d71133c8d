"""The group ``data``: where the text comes from and how it is cut."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from trainlarge.config.group import Group
from trainlarge.config.identity import NOT_IDENTITY, added_with, stands_for
from trainlarge.errors import UserError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)
SplitRule = Literal["documents", "grouped"]
DOCUMENTS: SplitRule = "documents"
"""The first rule, fixed for ever: the hash of each document alone decides. Near duplicates and neighbouring paragraphs
of one book fall on both sides. It holds for configurations that are older than the key ``data.split``."""
GROUPED: SplitRule = "grouped"
"""Documents that resemble each other stay together: files of the standard library that are near duplicates, rows that
differ in white space only, and the paragraphs of a text file, which is cut at one place."""
NEWEST = GROUPED
MOST_TOKENS = 10_000_000
"""Entries of a vocabulary, or tokens in a row."""
LEAST_VOCABULARY = 260
"""256 bytes and the special tokens ``[PAD]``, ``[CLS]``, ``[SEP]``, ``[MASK]``."""


@dataclass(frozen=True)
class DataConfig(Group):
    """Where the text comes from and how it is cut."""

    key: ClassVar[str] = "data"

    name: Literal["stdlib", "text"] = "stdlib"
    """``stdlib`` (source text of the running Python's standard library) or ``text`` (your files)."""
    files: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    """``text``: paths, folders or glob patterns of .txt, .md, .jsonl, .json, .csv, .tsv and .parquet files, all but the
    last also .gz or .zst. Of a folder, all such files in it and below."""
    validation_files: tuple[str, ...] = field(default=(), metadata=NOT_IDENTITY)
    """``text``: files held out for validation; empty: a share of the text of ``files``."""
    hub: str | None = None
    """``text``: name of a Hugging Face data set instead of files, where there is a network."""
    text_column: str = "text"
    """``text``: column that holds the text, in all but .txt and .md files. A number in a CSV file is text as it is
    written; a number in JSON or Parquet is refused. Rows without text are left out and counted."""
    encoding: str = field(default="utf-8", metadata=added_with("utf-8"))
    """``text``: encoding of all files but .parquet: ``utf-8``, ``utf-16``, ``latin-1``, ``cp1252``, ... A byte-order
    mark is left out."""
    separator: str | None = field(default=None, metadata=added_with(None))
    """``text``: character between fields of .csv and .tsv files, ``tab`` for a tab; null: a comma, in .tsv a tab."""
    validation_share: float = 0.05
    """Share of the text held out for validation, in (0, 1)."""
    split: SplitRule | None = field(default=None, metadata=added_with(DOCUMENTS))
    """Rule by which it is held out. ``grouped``: what resembles each other stays together (near duplicates in
    ``stdlib``, of whose largest group a part is left out; equal rows; a text file, which is cut at one place).
    ``documents``: each document by its own hash, as in cells from before this key. null: ``grouped``, filled in when a
    cell is frozen."""
    fraction: float = field(default=1.0, metadata=added_with(1.0))
    """Share of the training blocks that is used, in (0, 1]. Subsets are nested: those of 0.01 are among those of 0.05.
    Validation and tokenizer stay those of the whole."""
    vocab_size: int = 4096
    """Entries of the byte-level BPE vocabulary, special tokens included."""
    sequence_length: int = 128
    """Tokens in a row."""
    fingerprint: str | None = field(default=None, metadata=stands_for("files"))
    """Content hash of the corpus; filled in when a cell is frozen. It stands for ``files`` and ``validation_files``."""

    @property
    def rule(self) -> SplitRule:
        """The rule by which validation text is held out: ``split``, the newest where that is null.

        With ``validation_files`` no rule is needed, and cells keep the ids that they had before there were several.
        """
        return DOCUMENTS if self.validation_files else self.split or NEWEST

    @property
    def codec(self) -> str:
        """The encoding by the one name that Python gives it; a byte-order mark is left out with any of them.

        Raises:
            UserError: it is no encoding of text.
        """
        try:
            codec = codecs.lookup(self.encoding or "utf-8")
            "".encode(codec.name)
        except (LookupError, ValueError):
            allowed = "an encoding of text, such as utf-8, utf-16, latin-1 or cp1252"
            raise UserError("data.encoding", self.encoding, allowed) from None
        return "utf-8" if codec.name == "utf-8-sig" else codec.name

    @property
    def delimiter(self) -> str | None:
        """The character between fields; None for that of the format."""
        return "\t" if self.separator in ("tab", "\\t") else self.separator

    @property
    def known_fingerprint(self) -> str:
        """The content hash of a frozen cell. Raises ValueError before it is filled in."""
        if self.fingerprint is None:
            raise ValueError("data.fingerprint is filled in when the cell is frozen")
        return self.fingerprint

    def check(self) -> None:
        self.require("validation_share", 0 < self.validation_share < 1, "a number above 0 and below 1")
        self.require("fraction", 0 < self.fraction <= 1, "a number above 0 and at most 1")
        allowed = f"a whole number of at least {LEAST_VOCABULARY}: 256 bytes and the special tokens"
        self.require("vocab_size", self.vocab_size >= LEAST_VOCABULARY, allowed)
        self.require("vocab_size", self.vocab_size <= MOST_TOKENS, f"at most {MOST_TOKENS:,}")
        self.require_whole(2, "sequence_length")
        self.require("sequence_length", self.sequence_length <= MOST_TOKENS, f"at most {MOST_TOKENS:,}")
        is_whole = not self.validation_files or self.split in (None, DOCUMENTS)
        self.require("split", is_whole, "null with data.validation_files, which are the validation text")
        is_character = self.delimiter is None or (len(self.delimiter) == 1 and self.delimiter not in '"\r\n')
        self.require("separator", is_character, 'one character other than a quote or a line end, or "tab"')
        _ = self.codec  # which refuses what is no encoding
