"""What a format of text files is: its endings, its reader, and the keys that its reader looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainlarge.data.paragraphs import paragraph_groups
from trainlarge.data.rows import RowCounts
from trainlarge.data.streams import open_lines


@dataclass(frozen=True)
class Reading:
    """How files are read, whatever their format; each format looks at what concerns it."""

    text_column: str = "text"
    """Column that holds the text."""
    encoding: str = "utf-8"
    """Encoding of the text, by the name that Python gives it."""
    errors: Literal["strict", "replace"] = "strict"
    """What is done with bytes that are not in the encoding, by the name that Python gives it."""
    separator: str | None = None
    """Character between the fields of a row; None: that of the format."""
    longest_line: int | None = None
    """Characters of a line of plain text from which it is cut; None: never."""
    key: str = "data.text_column"
    """Key of the configuration that names the column."""
    takes_numbers: bool = False
    """Whether whole numbers in JSON and Parquet are taken as text, as labels are."""
    takes_fractions: bool = False
    """Whether other numbers are, too."""


Entries = Callable[[Path, Reading, RowCounts], Iterator[str | None]]
"""Reads the text of each row, None for a row without, from the first byte of a file to the last. Raises whatever its
libraries raise where the file is not what its ending says."""


@dataclass(frozen=True)
class TextFormat:
    """Files of certain endings."""

    endings: tuple[str, ...]
    """Their endings, in lower case, dot included."""
    name: str
    """Its name in fingerprints: never changed."""
    entries: Entries
    """Its reader."""
    reads: frozenset[str]
    """Keys of the group ``data`` that its reader looks at."""
    separator: str | None = None
    """Character between fields where ``data.separator`` is null."""
    is_compressible: bool = True
    """Whether ``.gz`` or ``.zst`` may stand behind the ending."""

    def describe(self, reading: Reading) -> tuple[str, ...]:
        """All that says how its files are read, for fingerprints.

        Keys that came later are in it where they are not at their defaults.
        """
        column = reading.text_column if "text_column" in self.reads else ""
        encoding = reading.encoding if "encoding" in self.reads else "utf-8"
        separator = reading.separator if "separator" in self.reads else None
        later = [f"encoding {encoding}"] if encoding != "utf-8" else []
        later += ["invalid replace"] if reading.errors != "strict" else []
        later += [f"separator {separator}"] if separator not in (None, self.separator) else []
        return (self.name, column, *later)


def _plain_entries(path: Path, reading: Reading, _counts: RowCounts) -> Iterator[str | None]:
    lines = open_lines(path, reading.encoding, newline=None, errors=reading.errors)
    return paragraph_groups((line.removesuffix("\n") for line in lines), reading.longest_line)


PLAIN = TextFormat((".txt", ".md"), "from_text", _plain_entries, reads=frozenset({"encoding", "invalid"}))
"""Plain text, whose documents are groups of paragraphs."""
