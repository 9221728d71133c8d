"""Groups of documents that are near duplicates of one another, by the lines that they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHORTEST_LINE = 20
"""Characters of a line that counts: shorter ones are in documents that have nothing to do with each other."""
SHARED = 0.2
"""Share of the smaller document's lines, by characters, from which two documents belong together."""
SHARED_CHARACTERS = 400
"""The least that they must share: a few common lines are much of a very short document."""
COPIED = 0.9
"""Share of both documents' lines from which they belong together however short they are."""


def near_duplicates(documents: Sequence[str]) -> list[list[int]]:
    """Indices of the documents by group, in the order of their first ones; most groups have one.

    Two documents belong together when the distinct lines that both have are ``SHARED`` of those of the smaller one (or
    ``COPIED`` of both), and so do documents that others link (single linkage). Lines are compared themselves, so
    nothing is drawn at random. Memory grows with the square of the number of documents: 4 MB for 730.
    """
    shared = np.zeros((len(documents), len(documents)))
    sizes = np.zeros(len(documents))
    for line, indices in _owners(documents).items():
        sizes[indices] += len(line)
        if len(indices) > 1:
            shared[np.ix_(indices, indices)] += len(line)
    overlap = shared >= np.maximum(SHARED * np.minimum.outer(sizes, sizes), SHARED_CHARACTERS)
    is_copy = shared >= COPIED * np.maximum.outer(sizes, sizes)
    return _components(overlap | is_copy)


def _owners(documents: Sequence[str]) -> dict[str, list[int]]:
    owners: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(documents):
        lines = {line for line in map(str.strip, text.splitlines()) if len(line) >= SHORTEST_LINE}
        for line in lines or {text.strip()}:
            owners[line].append(index)
    return owners


def _components(linked: NDArray[np.bool_]) -> list[list[int]]:
    groups: list[list[int]] = []
    seen = np.zeros(len(linked), bool)
    for start in range(len(linked)):
        if not seen[start]:
            members = np.zeros(len(linked), bool)
            members[start] = True
            while (reached := linked[members].any(axis=0) | members).sum() > members.sum():
                members = reached
            seen |= members
            groups.append(np.flatnonzero(members).tolist())
    return groups
