"""Documents of plain text files, which mark no documents: groups of paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

SOFT_CHARACTERS = 1_000
HARD_CHARACTERS = 4_000
LONGEST_LINE = 4 * HARD_CHARACTERS
PARAGRAPH_RULE = f"groups {SOFT_CHARACTERS} {HARD_CHARACTERS}"
"""Part of every fingerprint: change it with the rule below."""
CUT_RULE = f"{PARAGRAPH_RULE} lines {LONGEST_LINE}"
"""The same, with long lines cut."""


def paragraph_groups(lines: Iterable[str], longest_line: int | None = None) -> Iterator[str]:
    """Cut lines (without line ends) into documents of some thousand characters, none of them blank.

    A document ends at the first blank line once it holds ``SOFT_CHARACTERS``, or at the end of any line once it holds
    ``HARD_CHARACTERS``. Short enough that a small file still has documents for both splits, long enough that few blocks
    cross from one document into another.

    Args:
        longest_line: characters from which a line is cut, behind white space where it has any; None: never.
    """
    group: list[str] = []
    size = 0
    for line in lines if longest_line is None else _cut(lines, longest_line):
        group.append(line)
        size += len(line) + 1
        if size >= HARD_CHARACTERS or (size >= SOFT_CHARACTERS and not line.strip()):
            yield from _document(group)
            group, size = [], 0
    yield from _document(group)


def _cut(lines: Iterable[str], longest: int) -> Iterator[str]:
    for line in lines:
        if len(line) <= longest:
            yield line
        else:
            # As much as ends before white space, within the limit; else as much as the limit allows.
            yield from re.findall(rf".{{1,{HARD_CHARACTERS}}}(?:\s|$)|.{{1,{HARD_CHARACTERS}}}", line, re.DOTALL)


def _document(lines: list[str]) -> Iterator[str]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        yield text
