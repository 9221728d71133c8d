"""One thing that a study shows, or does not show, as a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A sentence made from numbers."""

    text: str
    """The sentence, with its full stop."""
    is_result: bool = True
    """False for what one might have expected and the numbers do not show."""

    def __str__(self) -> str:
        return self.text


MOST_NAMES = 8
"""Names that one sentence lists."""


def listed(words: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of more than ``MOST_NAMES`` the first ones, and how many more there are."""
    words = list(words)
    if len(words) > MOST_NAMES:
        words = [*words[: MOST_NAMES - 1], f"{len(words) - MOST_NAMES + 1:,} more"]
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def counted(count: int, one: str, several: str) -> str:
    """``1 family``, ``2 families``."""
    return f"{count} {one if count == 1 else several}"


def seeds_in_words(count: int) -> str:
    """``one seed``, ``2 seeds``."""
    return "one seed" if count == 1 else f"{count} seeds"


def runs(labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Label, first and last index of every run of equal labels."""
    ends: list[tuple[str, int, int]] = []
    for index, label in enumerate(labels):
        if ends and ends[-1][0] == label:
            ends[-1] = (label, ends[-1][1], index)
        else:
            ends.append((label, index, index))
    return ends
