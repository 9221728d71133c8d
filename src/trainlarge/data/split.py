"""The rules that divide text into training and validation: all of them, old and new, in one place.

Which of them a cell uses is ``data.split``: see ``trainlarge.config.data``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from trainlarge.config.data import Split
from trainlarge.data.arrays import Integers

SHORTEST_END = 4_000
"""Characters that a text file must be able to give for validation to be cut: fewer are hardly one document."""
LARGEST_GROUP = 0.02
"""Share of a corpus that one group of near duplicates may be; what is beyond it is left out."""
SMALLEST_NUMBER = 10
"""Groups that validation has at least, where the corpus has enough small ones: one large group is one topic."""


def split_of(key: str, validation_share: float) -> Split:
    """Split of the document that ``key`` (its name or its text) stands for.

    The first 8 bytes of SHA-256 of the key, read as a number in [0, 1), fall below ``validation_share`` or not: no
    random state, no dependence on the other documents, and equal documents always fall on the same side.
    """
    return "validation" if hashed(key) < validation_share * 2**64 else "train"


def hashed(key: str) -> int:
    """The first 8 bytes of SHA-256 of the key, as a number below 2^64."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8")).digest()[:8], "big")


def normalized(text: str) -> str:
    """The text with every run of white space as one space: documents that agree in it are the same one."""
    return " ".join(text.split())


def grouped_split(groups: Sequence[Sequence[tuple[str, int]]], validation_share: float) -> dict[str, Split]:
    """Split of documents by name, a group at a time.

    Whole groups, in the order of the hash of their first names, validate until they hold their share of the characters.

    Args:
        groups: name and characters of each document, group by group.
    """
    total = sum(size for group in groups for _, size in group)
    kept = [_capped(group, LARGEST_GROUP * total) for group in groups]
    sizes = [sum(size for _, size in group) for group in kept]
    wanted = validation_share * sum(sizes)
    small = [index for index, size in enumerate(sizes) if size <= wanted / SMALLEST_NUMBER]
    candidates = small if sum(sizes[index] for index in small) >= 2 * wanted else range(len(kept))
    splits: dict[str, Split] = {name: "train" for group in kept for name, _ in group}
    taken = 0
    for index in sorted(candidates, key=lambda index: hashed(kept[index][0][0])):
        if taken >= wanted:
            break
        taken += sizes[index]
        splits |= {name: "validation" for name, _ in kept[index]}
    return splits


def _capped(group: Sequence[tuple[str, int]], most: float) -> Sequence[tuple[str, int]]:
    """The first documents of a group that hold ``most`` characters; the whole group where it is one document."""
    ends = np.cumsum([size for _, size in group])
    return group[: max(1, int(np.searchsorted(ends, most, side="right")))]


def training_documents(files: Sequence[Integers], validation_share: float) -> list[int]:
    """How many documents at the beginning of each plain text file train; its other documents validate.

    Of a long file the end validates, as much as the share says, so that one place alone has neighbours on both sides.
    Short files stay whole: one in 1 / share validates. Where that leaves none, the longest file is cut.

    Args:
        files: the characters of each document, file by file.
    """
    sizes, taken, seen = [int(np.sum(lengths)) for lengths in files], list[float](), 0
    for size in sizes:
        is_long = size * validation_share >= SHORTEST_END
        seen += not is_long
        is_next = math.floor(seen * validation_share + 0.5) > math.floor((seen - 1) * validation_share + 0.5)
        taken.append(size * validation_share if is_long else float(size * is_next))
    if sizes and not any(taken):
        longest = max(range(len(sizes)), key=sizes.__getitem__)
        taken[longest] = min(sum(sizes) * validation_share, sizes[longest] / 2)
    return [_trained(lengths, end) for lengths, end in zip(files, taken, strict=True)]


def _trained(lengths: Integers, end: float) -> int:
    """Documents that come before the last ``end`` characters; the last one does not where ``end`` is above 0."""
    ends = np.cumsum(lengths)
    if not end or not len(lengths):
        return len(lengths)
    trained = np.searchsorted(ends - np.asarray(lengths) / 2, ends[-1] - end) if end < ends[-1] else 0
    return min(int(trained), len(lengths) - 1)
