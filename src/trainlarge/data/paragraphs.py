"""Documents of plain text files, which mark no documents: groups of paragraphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

SOFT_CHARACTERS = 1_000
HARD_CHARACTERS = 4_000
PARAGRAPH_RULE = f"groups {SOFT_CHARACTERS} {HARD_CHARACTERS}"
"""Part of every fingerprint: change it with the rule below."""


def paragraph_groups(lines: Iterable[str]) -> Iterator[str]:
    """Cut lines (without line ends) into documents of some thousand characters, none of them blank.

    A document ends at the first blank line once it holds ``SOFT_CHARACTERS``, or at the end of any line once it holds
    ``HARD_CHARACTERS``; a line is never cut. Short enough that a small file still has documents for both splits, long
    enough that few blocks cross from one document into another.
    """
    group: list[str] = []
    size = 0
    for line in lines:
        group.append(line)
        size += len(line) + 1
        if size >= HARD_CHARACTERS or (size >= SOFT_CHARACTERS and not line.strip()):
            yield from _document(group)
            group, size = [], 0
    yield from _document(group)


def _document(lines: list[str]) -> Iterator[str]:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        yield text
