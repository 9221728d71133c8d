"""How far the preparation of data is: a small file in the folder that is being built, which commands show as a bar."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trainlarge.config import typed_json
from trainlarge.sweep.files import read_json, write_json

PROGRESS = "progress.json"
WRITE_SECONDS = 1.0
SILENT_SECONDS = 30.0
"""Age from which a file is that of a builder that died. Merging the pairs of a large vocabulary may take so long."""


@dataclass(frozen=True)
class Preparation:
    """How far the preparation of one text is."""

    part: str
    """What is done: ``tokenizer``, ``validation``, ``training``."""
    characters: int
    """Characters that were read for it."""
    total: int | None = None
    """Bytes of all text, which are about as many; None where it is not known."""


@dataclass
class Meter:
    """Counts documents as they go by and says how far they are, at most once per second."""

    file: Path
    """Where it says so."""
    total: int | None = None
    """Bytes of all text; None where it is not known."""
    _next: float = field(default_factory=lambda: time.monotonic() + WRITE_SECONDS)

    def of(self, part: str, documents: Iterable[str]) -> Iterator[str]:
        """The same documents."""
        characters = 0
        for text in documents:
            yield text
            characters += len(text)
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + WRITE_SECONDS
                write_json(self.file, typed_json.plain(Preparation(part, characters, self.total)), durable=False)

    def end(self) -> None:
        """Nothing is left to say."""
        self.file.unlink(missing_ok=True)


def preparations(root: Path) -> list[Preparation]:
    """The preparations that are under way below ``root``, in any process."""
    found = []
    for file in sorted(root.glob(f".*.partial/{PROGRESS}")):
        try:
            if time.time() - file.stat().st_mtime < SILENT_SECONDS:
                found.append(typed_json.read(Preparation, read_json(file)))
        except (OSError, ValueError):
            # It ended between two looks.
            continue
    return found
