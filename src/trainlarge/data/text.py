"""Text of the user's own files: plain, JSON, CSV or Parquet, compressed or not."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from zstandard import ZstdError

from trainlarge.config.data import GROUPED, SPLITS, DataConfig, Split, SplitRule
from trainlarge.config.group import Plain
from trainlarge.data.arrays import Integers
from trainlarge.data.csv_rows import CSV, TSV
from trainlarge.data.formats import PLAIN, Reading
from trainlarge.data.found_files import files_named
from trainlarge.data.json_rows import JSON
from trainlarge.data.paragraphs import CUT_RULE, LONGEST_LINE, PARAGRAPH_RULE
from trainlarge.data.parquet_rows import PARQUET, column_bytes
from trainlarge.data.rows import RowCounts, texts
from trainlarge.data.split import normalized, split_of, training_documents
from trainlarge.data.streams import decompress
from trainlarge.errors import UserError
from trainlarge.sweep.digest import Stamp, file_digest, stamp

COMPRESSED = (".gz", ".zst")
FORMATS = {ending: form for form in (PLAIN, JSON, CSV, TSV, PARQUET) for ending in form.endings}
"""Format by the ending of a file's name."""
_COMPRESSIBLE = ", ".join(ending for ending, form in FORMATS.items() if form.is_compressible)
ALLOWED = f"files ending in {_COMPRESSIBLE}, also with .gz or .zst behind, or .parquet; or a folder of such files"
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, ZstdError)
"""What readers raise where a file is not what its ending says, or its end is missing."""
LOOKED_AT_BYTES = 50_000_000
"""Decompressed text of a file that is read when data is only looked at: it takes under a second."""
_HELD_OUT = "files whose contents are not among data.files, or training reads the validation text"
"""Where they are compared with the files of one group."""
TRAINED_ELSEWHERE = "files whose contents are not trained on, as those of {} are"
"""Where they are compared with the files of another group."""


@dataclass(frozen=True)
class TextFiles:
    """Documents from local files.

    A document is one row of a JSON, CSV or Parquet file, or a group of paragraphs of a plain text file
    (``paragraph_groups``). Files are read in the order of their digests, so that the same contents give the same
    documents in the same order wherever the files are and whatever they are called.
    """

    VERSION: ClassVar[int] = 2
    """Raised when the same files would give other documents: 1 read some compressed, CSV and marked files wrongly."""

    files: tuple[Path, ...]
    """Files of the training split, or of both splits."""
    validation_files: tuple[Path, ...]
    """Files of the validation split; when empty, ``rule`` divides ``files``."""
    reading: Reading
    """How the files are read."""
    validation_share: float
    """Expected share of the text that validates, in (0, 1); unused with ``validation_files``."""
    rule: SplitRule
    """The rule that divides ``files``."""

    @classmethod
    def from_data(cls, data: DataConfig) -> TextFiles:
        """Files that ``data.files`` and ``data.validation_files`` (paths, folders or patterns, ``~`` allowed) name.

        Raises:
            UserError: a path or pattern matches no file, an ending is unknown, a file is in both, or a setting is
                wrong.
        """
        files = _expand("data.files", data.files)
        if not files:
            raise UserError("data.files", list(data.files), f"{ALLOWED}; or set data.hub")
        held_out = _expand("data.validation_files", data.validation_files)
        in_training = {path.resolve() for path in files}
        for path in held_out:
            if path.resolve() in in_training:
                raise UserError("data.validation_files", path, _HELD_OUT)
        longest = LONGEST_LINE if data.rule == GROUPED else None
        errors: Literal["strict", "replace"] = "replace" if data.invalid == "replace" else "strict"
        reading = Reading(data.text_column or "text", data.codec, errors, data.delimiter, longest)
        return cls(files, held_out, reading, data.validation_share, data.rule)

    def documents(self, split: Split, counts: RowCounts | None = None) -> Iterator[str]:
        """Documents of the split, none of them blank.

        Args:
            counts: takes up what is read on the way.

        Raises:
            UserError: a file cannot be read, or has no such text column.
        """
        counts = counts or RowCounts()
        return chain.from_iterable(self._part(path, split, counts) for path in self.files_of(split))

    def contents(self) -> dict[str, Plain]:
        """Rule of the split and, for each split, how its files are read and their digests, sorted.

        Raises:
            UserError: a file cannot be read, or the contents of one both train and validate.
        """
        self.check_held_out(dict.fromkeys(self.training_digests(), _HELD_OUT) if self.validation_files else {})
        share = None if self.validation_files else self.validation_share
        files: dict[str, Plain] = {split: self._described(split) for split in SPLITS}
        paragraphs = PARAGRAPH_RULE if self.reading.longest_line is None else CUT_RULE
        rule: dict[str, Plain] = {"split": self.rule} if self.rule == GROUPED else {}
        return {"corpus": "text", "paragraphs": paragraphs, "validation_share": share, "files": files, **rule}

    def training_digests(self) -> Iterator[str]:
        """SHA-256 of each file of the training split, or of both splits."""
        return map(self._digest, self.files)

    def check_held_out(self, refused: Mapping[str, str], key: str = "data.validation_files") -> None:
        """Refuse a copy of a training file, whatever it is called, among the validation files.

        Args:
            refused: SHA-256 of each training file -> what is allowed in its place.
            key: key that names the validation files.

        Raises:
            UserError: naming the key and the file.
        """
        for path in self.validation_files:
            if allowed := refused.get(self._digest(path)):
                raise UserError(key, path, allowed)

    def stamp(self) -> Hashable:
        """Stamps of all files."""
        return tuple(stamp(path) for path in self.files + self.validation_files)

    @property
    def size(self) -> int | None:
        """Bytes of all files; None where some are compressed, so that their text may be any size."""
        paths = self.files + self.validation_files
        is_plain = all(path.suffix.lower() not in COMPRESSED for path in paths)
        return sum(path.stat().st_size for path in paths) if is_plain else None

    @property
    def text_bytes(self) -> int | None:
        """Bytes of the text in all files, roughly; None where some are compressed."""
        if self.size is None:
            return None
        paths = self.files + self.validation_files
        return sum(
            column_bytes(path, self.reading.text_column) if _ending(path) in PARQUET.endings else path.stat().st_size
            for path in paths
        )

    @property
    def is_divided_as_read(self) -> bool:
        """Whether a document's split is known once it is read: the place where a text file is cut depends on all."""
        is_cut = self.rule == GROUPED and not self.validation_files
        return not is_cut or all(map(self.has_columns, self.files))

    def look(self) -> None:
        """Read each file up to its first text; a compressed one, whose end may be missing, up to ``LOOKED_AT_BYTES``.

        Raises:
            UserError: one cannot be read, or has no such text column.
        """
        for path in self.files + self.validation_files:
            next(read_documents(path, self.reading), None)
            if path.suffix.lower() in COMPRESSED:
                with _unreadable_named(path, self.reading):
                    decompress(path, LOOKED_AT_BYTES)

    def has_columns(self, path: Path) -> bool:
        """Whether a file is a table."""
        return "text_column" in FORMATS[_ending(path)].reads

    def holds(self, split: Split, text: str) -> bool:
        """Whether a row of a table with that text, in a file of ``files_of(split)``, belongs to the split."""
        if self.validation_files:
            return True
        return split_of(normalized(text) if self.rule == GROUPED else text, self.validation_share) == split

    def needs(self, key: str) -> str | None:
        """What would make this corpus read ``data.<key>``; None where it does."""
        if key in ("files", "validation_files", "split"):
            return None
        if key == "streaming":
            return "data.hub is set"
        if key == "validation_share":
            return "data.validation_files is empty" if self.validation_files else None
        readers = [ending for ending, form in FORMATS.items() if key in form.reads]
        if any(_ending(path) in readers for path in self.files + self.validation_files):
            return None
        return f"there are files ending in {', '.join(readers)}"

    def _part(self, path: Path, split: Split, counts: RowCounts) -> Iterator[str]:
        """Documents of one file that belong to the split."""
        documents = read_documents(path, self.reading, counts)
        if self.validation_files:
            yield from documents
        elif self.rule == GROUPED and _ending(path) in PLAIN.endings:
            trained = self._trained(path)
            yield from (text for place, text in enumerate(documents) if (place < trained) == (split == "train"))
        else:
            yield from (text for text in documents if self.holds(split, text))

    def _trained(self, path: Path) -> int:
        """How many documents at the beginning of a plain text file train."""
        plain = [file for file in self.files_of("train") if _ending(file) in PLAIN.endings]
        lengths = [_document_lengths(stamp(file), self.reading) for file in plain]
        return training_documents(lengths, self.validation_share)[plain.index(path)]

    def files_of(self, split: Split) -> list[Path]:
        """Files that hold text of the split, in the order in which they are read."""
        held_out = split == "validation" and self.validation_files
        return sorted(self.validation_files if held_out else self.files, key=self._digest)

    def _described(self, split: Split) -> list[Plain]:
        """How each file of a split is read, and its digest, sorted."""
        files = [[*FORMATS[_ending(path)].describe(self.reading), self._digest(path)] for path in self.files_of(split)]
        return [list[Plain](file) for file in sorted(files)]

    def _digest(self, path: Path) -> str:
        try:
            return file_digest(path)
        except OSError as error:
            raise UserError("data.files", path, f"a readable file ({error.strerror})") from error


def read_documents(path: Path, reading: Reading, counts: RowCounts | None = None) -> Iterator[str]:
    """Documents of one file, none of them blank.

    Args:
        counts: takes up what is read.

    Raises:
        UserError: the file cannot be read to its end, or has no such text column.
    """
    counts = counts or RowCounts()
    yield from texts(read_entries(path, reading, counts), counts)


def read_entries(path: Path, reading: Reading, counts: RowCounts) -> Iterator[str | None]:
    """The text of each row of a file, None for a row without; a document of plain text is a row.

    Raises:
        UserError: the file cannot be read to its end, or has no such column.
    """
    with _unreadable_named(path, reading):
        for entry in FORMATS[_ending(path)].entries(path, reading, counts):
            counts.repaired += reading.errors == "replace" and entry is not None and "\ufffd" in entry
            yield entry


@contextmanager
def _unreadable_named(path: Path, reading: Reading) -> Iterator[None]:
    """Raise the UserError of a file for what its reader raises within the block."""
    try:
        yield
    except UserError:
        raise
    except UnicodeError as error:
        other = "another data.encoding, or data.invalid=replace"
        allowed = f"text in {reading.encoding}, or {other} ({_reason(error)})"
        raise UserError("data.files", path, allowed) from error
    except _UNREADABLE as error:
        raise UserError("data.files", path, f"a readable {_ending(path)} file ({_reason(error)})") from error


@lru_cache(maxsize=4096)
def _document_lengths(file: Stamp, reading: Reading) -> Integers:
    """Characters of each document of a file, shape [documents] int64."""
    return np.fromiter(map(len, read_documents(Path(file[0]), reading)), np.int64)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _expand(key: str, patterns: Sequence[str]) -> tuple[Path, ...]:
    """Files that the patterns match, sorted, each once whatever paths lead to it."""
    paths = sorted({path for pattern in patterns for path in _matches(key, pattern)})
    for path in paths:
        if _ending(path) not in FORMATS:
            raise UserError(key, path, ALLOWED)
    return tuple({path.resolve(): path for path in reversed(paths)}.values())[::-1]


def _matches(key: str, pattern: str) -> list[Path]:
    files = files_named(key, pattern)
    if not Path(pattern).expanduser().is_dir():
        if not files:
            raise UserError(key, pattern, "an existing file or folder, or a pattern that matches files")
        return files
    known = [path for path in files if _ending(path) in FORMATS]
    if not known:
        raise UserError(key, Path(pattern).expanduser().absolute(), ALLOWED)
    return known


def _ending(path: Path) -> str:
    """Last suffix in lower case, without the one of compression where the format may be compressed."""
    inner = Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSED else ""
    return inner if inner in FORMATS and FORMATS[inner].is_compressible else path.suffix.lower()
