"""The embedded default corpus: the source text of the running Python's standard library."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from trainlarge.config.data import GROUPED, DataConfig, Split, SplitRule
from trainlarge.config.group import Plain
from trainlarge.data.near_duplicates import near_duplicates
from trainlarge.data.rows import RowCounts, texts
from trainlarge.data.split import grouped_split, split_of
from trainlarge.errors import UserError
from trainlarge.sweep.digest import file_digest

INSTALLED = frozenset({"site-packages", "dist-packages"})
TESTS = frozenset({"test", "tests", "idle_test", "__pycache__"})
PROSE = frozenset({"pydoc_data"})
"""The language's documentation as one file of text: no source, and more than half of the split that it falls into."""
BUILD_PREFIXES = ("config-", "_sysconfigdata")
"""Written when Python is built and full of that machine's paths: two builds of one release must give one corpus."""


@lru_cache(maxsize=1)
def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


@dataclass(frozen=True)
class Stdlib:
    """Source files of a standard library, one document per file.

    By the first rule the hash of a file's relative path decides its split. By the newest one files that are near
    duplicates stay together, and of a large group of them, such as the tables of ``encodings``, only a part is used.
    """

    VERSION: ClassVar[int] = 1
    """Raised when the same files would give other documents."""

    root: Path
    """Folder of the standard library."""
    validation_share: float
    """Expected share of the text that validates, in (0, 1)."""
    rule: SplitRule
    """The rule that divides it."""

    @classmethod
    def from_data(cls, data: DataConfig) -> Stdlib:
        """Standard library of the running Python, split as ``data.validation_share`` says.

        Raises:
            UserError: this Python comes without source text.
        """
        library = cls(_root(), data.validation_share, data.rule)
        if not source_files(library.root):
            raise UserError("data.name", "stdlib", f"another corpus: {library.root} holds no Python source text")
        return library

    def documents(self, split: Split, counts: RowCounts | None = None) -> Iterator[str]:
        """Text of the split's files in order of their names; files that are not UTF-8 are left out.

        Args:
            counts: takes up what is read on the way.
        """
        counts = counts or RowCounts()
        for name in source_files(self.root):
            if self._split_of(name) == split:
                yield from texts(_text(self.root / name), counts)

    def contents(self) -> dict[str, Plain]:
        """Share and (name, SHA-256) of every file."""
        files: list[Plain] = [[name, file_digest(self.root / name)] for name in source_files(self.root)]
        rule: dict[str, Plain] = {"split": self.rule} if self.rule == GROUPED else {}
        return {"corpus": "stdlib", "validation_share": self.validation_share, "files": files, **rule}

    def needs(self, key: str) -> str | None:
        """What would make a corpus read ``data.<key>``; None where this one does."""
        return None if key in ("validation_share", "split") else "data=text"

    def _split_of(self, name: str) -> Split | None:
        """Split of a file; None where it is left out."""
        if self.rule == GROUPED:
            return _grouped(self.root, self.validation_share).get(name)
        return split_of(name, self.validation_share)

    def stamp(self) -> Hashable:
        """Constant: the library of a running Python does not change."""
        return None


@lru_cache
def source_files(root: Path) -> tuple[str, ...]:
    """Sorted relative POSIX paths of the library's own ``*.py`` source: no tests, packages, prose and build records."""
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if _belongs(name)]
        files += [Path(folder, name) for name in names if name.endswith(".py") and _belongs(name)]
    return tuple(sorted(path.relative_to(root).as_posix() for path in files))


def _belongs(name: str) -> bool:
    return name not in INSTALLED | TESTS | PROSE and not name.startswith(BUILD_PREFIXES)


@lru_cache(maxsize=4)
def _grouped(root: Path, share: float) -> dict[str, Split]:
    """Split of every file that is used, by its name."""
    documents = {name: text for name in source_files(root) for text in _text(root / name) if text.strip()}
    names, sizes = list(documents), [len(text) for text in documents.values()]
    groups = near_duplicates(list(documents.values()))
    return grouped_split([[(names[index], sizes[index]) for index in group] for group in groups], share)


def _text(path: Path) -> Iterator[str]:
    try:
        yield path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
