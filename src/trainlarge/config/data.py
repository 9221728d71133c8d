"""The group ``data``: where the text comes from and how it is cut."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from trainlarge.config.group import Group, with_values
from trainlarge.config.identity import NOT_IDENTITY, added_with, stands_for
from trainlarge.config.named import Named, check_names
from trainlarge.config.source import STDLIB, EvaluationTextConfig, SourceConfig, TextConfig
from trainlarge.errors import UserError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)
Invalid = Literal["refuse", "replace"]
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
_TAKEN = frozenset(
    {"train", "train_set", "dense", "validation", "train_validation", "frequency", "token_frequency", "baseline"}
    | {"selection", "parent", "overlap", "total", "thread", "unknown", "padding", "pruned"}
)
"""Names of sources and evaluation texts whose columns would be those of something else, or be taken for it."""


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
    """``text``: name of a Hugging Face data set instead of files, where there is a network: ``owner/name``, or
    ``owner/name:configuration``. Its split ``train`` is read."""
    streaming: bool = field(default=False, metadata={**NOT_IDENTITY, **added_with(False)})
    """With ``hub``: read the data set over the network each time that it is gone through, instead of downloading it
    into the Hub's cache once: for what does not fit on the disk (not identity)."""
    sources: Named[SourceConfig] = field(default=Named(), metadata=added_with(Named()))
    """``text``: several texts that are mixed, instead of ``files`` and ``hub``: a mapping from names to groups, such
    as ``{wiki: {files: [wiki.parquet], weight: 2}, books: {files: [books], weight: 1}}``."""
    evaluations: Named[EvaluationTextConfig] = field(default=Named(), metadata=added_with(Named()))
    """Other texts on which every cell is evaluated at its end: a mapping from names to groups, such as
    ``{books: {files: [books.txt]}, code: {name: stdlib}}``. They become columns: ``books_loss``, ``books_gap``, ..."""
    text_column: str = "text"
    """``text``: column that holds the text, in all but .txt and .md files. A number in a CSV file is text as it is
    written; a number in JSON or Parquet is refused. Rows without text are left out and counted."""
    encoding: str = field(default="utf-8", metadata=added_with("utf-8"))
    """``text``: encoding of all files but .parquet: ``utf-8``, ``utf-16``, ``latin-1``, ``cp1252``, ... A byte-order
    mark is left out."""
    invalid: Invalid = field(default="refuse", metadata=added_with("refuse"))
    """``text``: bytes of a file that are no text in its encoding: ``refuse`` the file, or ``replace`` them by U+FFFD
    and count the rows that have any."""
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
    evaluations_fingerprint: str | None = field(
        default=None, metadata={**stands_for("evaluations"), **added_with(None)}
    )
    """Content hash of ``evaluations``; filled in when a cell is frozen."""

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

    def texts(self) -> dict[str, DataConfig]:
        """Full key of each source -> the group with that text alone; this group as ``data`` where there are none."""
        return {f"data.sources.{name}": self.of(source) for name, source in self.sources.items()} or {"data": self}

    def of(self, text: TextConfig) -> DataConfig:
        """The group with one source, or one text to evaluate on, as its only text."""
        is_source = isinstance(text, SourceConfig)
        held_out = text.validation_files if isinstance(text, SourceConfig) else ()
        return with_values(
            self,
            name=text.name,
            files=text.files,
            validation_files=held_out,
            hub=text.hub,
            text_column=text.text_column or self.text_column,
            encoding=text.encoding or self.encoding,
            separator=text.separator or self.separator,
            # What is held out for evaluation alone is the same whatever the split of the training text is.
            split=None if held_out or not is_source else self.split,
            validation_share=self.validation_share if is_source else DataConfig.validation_share,
            sources=Named(),
            evaluations=Named(),
            fingerprint=None,
            evaluations_fingerprint=None,
        )

    def check(self) -> None:
        self._check_mappings()
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

    def _check_mappings(self) -> None:
        """Refuse sources and evaluation texts that cannot be used, and keys that they take the place of."""
        check_names("data.sources", self.sources, _TAKEN)
        check_names("data.evaluations", self.evaluations, _TAKEN)
        for key, texts in (("data.sources", self.sources), ("data.evaluations", self.evaluations)):
            for name, text in texts.items():
                text.check_text(f"{key}.{name}")
        self._check_held_out()
        if not self.sources:
            return
        for name in ("files", "validation_files", "hub"):
            self.require(name, not getattr(self, name), "empty with data.sources, which name their own")
        if len({source.weight is None for source in self.sources.values()}) > 1:
            name = next(name for name, source in self.sources.items() if source.weight is None)
            allowed = "a number above 0 where other sources have a weight; null in all of them means their sizes"
            raise UserError(f"data.sources.{name}.weight", None, allowed)
        if self.name != "text":
            raise UserError("data", self.name, "text with data.sources")

    def _check_held_out(self) -> None:
        """Refuse to evaluate on a corpus that is trained on: what it holds out is the validation text."""
        trained: list[DataConfig | SourceConfig] = [self, *self.sources.values()]
        names, hubs = {text.name for text in trained}, {text.hub.lower() for text in trained if text.hub}
        for name, text in self.evaluations.items():
            if text.name == STDLIB and STDLIB in names:
                allowed = "text where stdlib is trained on, whose own validation text is evaluated"
                raise UserError(f"data.evaluations.{name}.name", text.name, allowed)
            if text.hub and text.hub.lower() in hubs:
                allowed = "another data set than is trained on, whose own validation text is evaluated"
                raise UserError(f"data.evaluations.{name}.hub", text.hub, allowed)
