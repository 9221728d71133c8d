"""Text of the user's own files: plain, JSON, CSV or Parquet, compressed or not, read with the `datasets` library."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlarge.data.hub import HubText
from trainlarge.data.paragraphs import PARAGRAPH_RULE, paragraph_groups
from trainlarge.data.split import SPLITS, Split, split_of, validation_share
from trainlarge.data.table import BATCH_ROWS, column_text, quiet_datasets
from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest, stamp

if TYPE_CHECKING:
    from datasets import IterableDataset

COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True)
class Format:
    """How files of one suffix are read."""

    reader: str
    """Constructor of `datasets.IterableDataset`."""
    options: tuple[tuple[str, Any], ...] = ()
    """Further arguments of that constructor."""
    tabular: bool = True
    """Whether the text is a column of rows (else lines)."""
    compressible: bool = True
    """Whether the file may be compressed as a whole."""


FORMATS = {
    ".txt": Format("from_text", tabular=False),
    ".jsonl": Format("from_json"),
    ".json": Format("from_json"),
    ".csv": Format("from_csv", options=(("keep_default_na", False),)),
    ".parquet": Format("from_parquet", compressible=False),
}
ALLOWED = "files ending in .txt, .jsonl, .json or .csv, also with .gz or .zst behind, or .parquet"
_HELD_OUT = "files whose contents are not among data.files, or training reads the validation text"


@dataclass(frozen=True)
class TextFiles:
    """Documents from local files.

    A document is one row of a JSON, CSV or Parquet file, or a group of paragraphs of a ``.txt`` file
    (``paragraph_groups``). Files are read in the order of their digests, so that the same contents give the same
    documents in the same order wherever the files lie and whatever they are called.
    """

    files: tuple[Path, ...]
    """Files of the training split, or of both splits."""
    validation_files: tuple[Path, ...]
    """Files of the validation split; when empty, the hash of a document's text decides its split."""
    text_column: str
    """Column that holds the text of JSON, CSV and Parquet files."""
    validation_share: float
    """Expected share of the documents that validate, in (0, 1); unused beside ``validation_files``."""

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> TextFiles:
        """Files that ``data.files`` and ``data.validation_files`` (paths or patterns, ``~`` allowed) name.

        Raises:
            UserError: a path or pattern matches no file, a suffix is unknown, a file is in both, or the share is wrong.
        """
        files = _expand("data.files", data.get("files"))
        if not files:
            raise UserError("data.files", data.get("files"), f"{ALLOWED}; or set data.hub")
        held_out = _expand("data.validation_files", data.get("validation_files"))
        in_training = {path.resolve() for path in files}
        for path in held_out:
            if path.resolve() in in_training:
                raise UserError("data.validation_files", path, _HELD_OUT)
        return cls(files, held_out, data.get("text_column") or "text", validation_share(data))

    def documents(self, split: Split) -> Iterator[str]:
        """Documents of the split, none of them blank.

        Raises:
            UserError: a file cannot be read, or has no such text column.
        """
        for path in sorted(self._files(split), key=self._digest):
            for text in read_documents(path, self.text_column):
                if self.validation_files or split_of(text, self.validation_share) == split:
                    yield text

    def contents(self) -> dict[str, Any]:
        """Rule of the split and, for each split, how its files are read and their digests, sorted.

        Raises:
            UserError: a file cannot be read, or the contents of one both train and validate.
        """
        self._check_held_out()
        share = None if self.validation_files else self.validation_share
        files = {split: sorted(map(self._describe, self._files(split))) for split in SPLITS}
        return {"corpus": "text", "paragraphs": PARAGRAPH_RULE, "validation_share": share, "files": files}

    def stamp(self) -> Hashable:
        """Stamps of all files."""
        return tuple(stamp(path) for path in self.files + self.validation_files)

    def _files(self, split: Split) -> tuple[Path, ...]:
        return self.validation_files if split == "validation" and self.validation_files else self.files

    def _check_held_out(self) -> None:
        """Refuse a copy of a training file, whatever it is called."""
        in_training = {self._digest(path) for path in self.files} if self.validation_files else set()
        for path in self.validation_files:
            if self._digest(path) in in_training:
                raise UserError("data.validation_files", path, _HELD_OUT)

    def _describe(self, path: Path) -> tuple[str, str, str]:
        form = FORMATS[_suffix(path)]
        return form.reader, self.text_column if form.tabular else "", self._digest(path)

    def _digest(self, path: Path) -> str:
        try:
            return file_digest(path)
        except OSError as error:
            raise UserError("data.files", path, f"a readable file ({error.strerror})") from error


def text_corpus(data: dict[str, Any]) -> TextFiles | HubText:
    """Corpus of ``data.hub`` where that is set, else of ``data.files``.

    Raises:
        UserError: both are set, or either is wrong.
    """
    if data.get("hub") and data.get("files"):
        raise UserError("data.hub", data["hub"], "null beside data.files")
    return HubText.from_data(data) if data.get("hub") else TextFiles.from_data(data)


def read_documents(path: Path, text_column: str) -> Iterator[str]:
    """Documents of one file, none of them blank; nothing is downloaded and no cache is left behind.

    Raises:
        UserError: the file cannot be read, or has no such text column.
    """
    form = FORMATS[_suffix(path)]
    if not path.stat().st_size:
        return iter(())
    batches = _readable(path, _batches(path, form))
    if form.tabular:
        return column_text(batches, text_column)
    return paragraph_groups(line for batch in batches for line in batch["text"])


def _batches(path: Path, form: Format) -> Iterator[dict[str, list[Any]]]:
    reader: Callable[..., IterableDataset] = getattr(quiet_datasets().IterableDataset, form.reader)
    with tempfile.TemporaryDirectory(prefix="trainlarge-") as cache:
        yield from reader(glob.escape(str(path)), cache_dir=cache, **dict(form.options)).iter(BATCH_ROWS)


def _readable(path: Path, batches: Iterable[dict[str, list[Any]]]) -> Iterator[dict[str, list[Any]]]:
    """The same batches; whatever the reader raises (each library has its own classes) is the file's fault."""
    try:
        yield from batches
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError("data.files", path, f"a readable {_suffix(path)} file in UTF-8 ({reason[:200]})") from error


def _expand(key: str, patterns: str | Sequence[str] | None) -> tuple[Path, ...]:
    """Files that the patterns match, sorted, each once."""
    listed = [patterns] if isinstance(patterns, str) and patterns else list(patterns or ())
    paths = {path for pattern in listed for path in _matches(key, str(pattern))}
    for path in paths:
        if _suffix(path) not in FORMATS:
            raise UserError(key, path, ALLOWED)
    return tuple(sorted(paths))


def _matches(key: str, pattern: str) -> list[Path]:
    named = Path(pattern).expanduser().absolute()
    found = [named] if named.is_file() else map(Path, glob.glob(str(named), recursive=True))  # noqa: PTH207 - absolute
    files = [path for path in found if path.is_file()]
    if not files:
        raise UserError(key, pattern, "an existing file, or a pattern that matches one")
    return files


def _suffix(path: Path) -> str:
    """Last suffix in lower case, without the one of compression where the format may be compressed."""
    inner = Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSED else ""
    return inner if inner in FORMATS and FORMATS[inner].compressible else path.suffix.lower()
