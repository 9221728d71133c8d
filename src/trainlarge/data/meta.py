"""``meta.json`` of a folder of prepared data: what was prepared, and the digests of its files.

Files from before a key was added are read without it, so such a key has a default here.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from trainlarge.config.typed_json import plain, read
from trainlarge.data.arrays import TokenDtype
from trainlarge.data.facts import RowsBySplit, SourceFacts, TextFacts
from trainlarge.data.kept import NOT_KEPT, FileDigest, check_digest
from trainlarge.data.labelled_facts import LabelledFacts
from trainlarge.data.overlap import Overlap
from trainlarge.data.tokenizer import TOKENIZER, load_tokenizer
from trainlarge.data.tokens import TokenCounts
from trainlarge.sweep.files import flush
from trainlarge.sweep.sealed import read_sealed, write_sealed

META = "meta.json"
FORMAT_VERSION = 1
"""Version of these files, kept with them. What makes a folder another one is the version of its reader: see
``Corpus.VERSION``."""


@dataclass(frozen=True)
class Versions:
    """What else the files depend on."""

    format: int = FORMAT_VERSION
    python: str = field(default_factory=platform.python_version)
    tokenizers: str = field(default_factory=lambda: version("tokenizers"))


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What is said of any prepared data."""

    fingerprint: str
    """Content fingerprint of the corpus."""
    vocab_size: int
    """Entries of the tokenizer."""
    dtype: TokenDtype
    """Type of the ids in the token files."""
    versions: Versions | None = None
    """None where it was prepared before they were kept."""
    tokenizer: FileDigest = NOT_KEPT
    """Digest of ``tokenizer.json``."""


@dataclass(frozen=True, kw_only=True)
class TextMeta(Meta):
    """What is said of prepared text."""

    train: TokenCounts
    validation: TokenCounts
    rows: RowsBySplit | None = None
    overlap: Overlap | None = None
    sources: Mapping[str, SourceFacts] = field(default_factory=dict)
    training_keys: FileDigest = NOT_KEPT
    """Digest of the file of keys of the training documents; there is none in data of an older version."""

    def blocks(self, sequence_length: int) -> dict[str, int]:
        """Training blocks of each source; those of all, under no name, where there are no sources."""
        tokens = {name: source.train.tokens for name, source in self.sources.items()} or {"": self.train.tokens}
        return {name: count // sequence_length for name, count in tokens.items()}

    @property
    def facts(self) -> TextFacts | None:
        """Facts about the text; None where it was prepared before they were counted."""
        if self.rows is None or self.overlap is None:
            return None
        return TextFacts(self.train, self.validation, self.rows, self.overlap, self.sources)


@dataclass(frozen=True)
class LabelledCounts:
    """What was written of the rows of a split."""

    rows: int
    tokens: int
    sha256: str
    """SHA-256 of the token file."""
    rows_sha256: str
    """SHA-256 of the table of rows."""


@dataclass(frozen=True, kw_only=True)
class LabelledMeta(Meta):
    """What is said of prepared rows with labels."""

    labels: tuple[str, ...]
    """The different labels, in the order of their classes; empty where labels are numbers."""
    train: LabelledCounts
    validation: LabelledCounts
    repeated: int = 0
    """Validation rows whose texts stand together in a training row, too."""
    facts: LabelledFacts | None = None
    """What was read; None where it was prepared before that was counted."""


M = TypeVar("M", bound=Meta)


def write_meta(folder: Path, meta: Meta) -> None:
    """Write what is said of a folder, after its tokenizer is safely on disk."""
    flush(folder / TOKENIZER)
    write_sealed(folder / META, plain(meta))


def read_meta(kind: type[M], folder: Path, fingerprint: str | None = None, vocab_size: int | None = None) -> M:
    """What is said of a folder, after a look at its tokenizer.

    Args:
        kind: what it must be.
        folder: the folder.
        fingerprint: what it must be of; None: any.
        vocab_size: the entries that its tokenizer must have; None: any number.

    Raises:
        ValueError: it says something else, or the tokenizer is not as it was written.
    """
    meta = read(kind, read_sealed(folder / META))
    for key, expected in (("fingerprint", fingerprint), ("vocab_size", vocab_size)):
        if expected is not None and getattr(meta, key) != expected:
            raise ValueError(f"{META} says {key} {getattr(meta, key)} and not {expected}")
    check_digest(folder / TOKENIZER, meta.tokenizer.sha256)
    if meta.tokenizer.sha256 is None:
        _check_tokenizer(folder / TOKENIZER)
    return meta


def _check_tokenizer(path: Path) -> None:
    """Raise ValueError for a file, of which no digest was kept, that is no tokenizer."""
    try:
        load_tokenizer(path)
    except Exception as error:  # the library raises nothing more specific
        raise ValueError(f"{path.name} is no tokenizer ({error})") from error
