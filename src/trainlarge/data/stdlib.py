"""The embedded default corpus: the source text of the running Python's standard library."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainlarge.data.split import Split, split_of, validation_share
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
    """Source files of a standard library, one document a file; the relative path decides the split."""

    root: Path
    """Folder of the standard library."""
    validation_share: float
    """Expected share of the files that validate, in (0, 1)."""

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Stdlib:
        """Standard library of the running Python, split as ``data.validation_share`` says.

        Raises:
            UserError: the share is wrong, or this Python comes without source text.
        """
        library = cls(_root(), validation_share(data))
        if not source_files(library.root):
            raise UserError("data.name", "stdlib", f"another corpus: {library.root} holds no Python source text")
        return library

    def documents(self, split: Split) -> Iterator[str]:
        """Text of the split's files in order of their names; files that are not UTF-8 are left out."""
        for name in source_files(self.root):
            if split_of(name, self.validation_share) == split:
                yield from _text(self.root / name)

    def contents(self) -> dict[str, Any]:
        """Share and (name, SHA-256) of every file."""
        files = [(name, file_digest(self.root / name)) for name in source_files(self.root)]
        return {"corpus": "stdlib", "validation_share": self.validation_share, "files": files}

    def stamp(self) -> Hashable:
        """Constant: the library of a running Python does not change."""
        return None


@lru_cache
def source_files(root: Path) -> tuple[str, ...]:
    """Sorted relative POSIX paths of the library's own ``*.py`` source: no tests, packages, prose and build records."""
    return tuple(sorted(path.relative_to(root).as_posix() for path in _walk(root)))


def _walk(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if _belongs(name)]
        yield from (Path(folder, name) for name in names if name.endswith(".py") and _belongs(name))


def _belongs(name: str) -> bool:
    return name not in INSTALLED | TESTS | PROSE and not name.startswith(BUILD_PREFIXES)


def _text(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    if text.strip():
        yield text
