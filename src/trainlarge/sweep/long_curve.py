"""Reading a curve that is too long for memory: exact rows of it, chosen while the file is read.

Kept are the first and the last row, that of the lowest loss, and the rows with an evaluation as far as these are few;
of the others as many as there is room for, evenly along the logarithm of their number, as figures show them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

from trainlarge.config.group import Plain
from trainlarge.sweep.files import rows_of

LONG_BYTES = 4 << 20
"""A file of more bytes, about 15,000 rows, is thinned: curves that trainlarge writes have some tens of rows."""
MOST_ROWS = 5000
"""Rows that are left of it."""
_CHUNK = 1 << 20
Numbered = tuple[int, dict[str, Plain]]
"""A row and its number in the file, from 0."""


def read_thinned(path: Path) -> tuple[list[dict[str, Plain]], str]:
    """At most ``MOST_ROWS`` rows of a JSON-lines file, in their order, and the SHA-256 of the whole file.

    Memory is bounded whatever the length, but for that of a single line.

    Raises:
        OSError: where it cannot be read.
        ValueError: for a line that is damaged, but for a torn last one.
    """
    digest, kept, count = hashlib.sha256(), list[Numbered](), 0
    for lines in _whole_lines(path):
        digest.update(lines)
        rows = rows_of(lines)
        kept += enumerate(rows, start=count)
        count += len(rows)
        kept = thinned(kept) if len(kept) > 4 * MOST_ROWS else kept
    return [row for _, row in thinned(kept)], digest.hexdigest()


def thinned(rows: list[Numbered]) -> list[Numbered]:
    """At most ``MOST_ROWS`` of them: see the top of this file."""
    if len(rows) <= MOST_ROWS:
        return rows
    places, losses = range(len(rows)), [_loss(row) for _, row in rows]
    wanted = {0, len(rows) - 1, min(places, key=losses.__getitem__)}
    evaluated = [place for place in places if losses[place] < math.inf]
    wanted |= set(_spread(rows, evaluated, MOST_ROWS - len(wanted)))
    rest = [place for place in places if place not in wanted]
    wanted |= set(_spread(rows, rest, MOST_ROWS - len(wanted)))
    return [rows[place] for place in sorted(wanted)]


def _spread(rows: list[Numbered], places: list[int], most: int) -> list[int]:
    """At most ``most`` of ``places``, evenly along the logarithm of the numbers of their rows."""
    if len(places) <= most:
        return places
    if most <= 0:
        return []
    logs = [math.log1p(rows[place][0]) for place in places]
    width = (logs[-1] - logs[0]) / most
    first_of_cell: dict[int, int] = {}
    for place, log in zip(places, logs, strict=True):
        first_of_cell.setdefault(min(int((log - logs[0]) / width), most - 1), place)
    return list(first_of_cell.values())


def _loss(row: dict[str, Plain]) -> float:
    """Evaluation loss; infinite where the row has none."""
    loss = row.get("loss")
    return float(loss) if isinstance(loss, int | float) else math.inf


def _whole_lines(path: Path) -> Iterator[bytes]:
    """The file in pieces that end where a line ends, but for the last."""
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece if piece.endswith(b"\n") else piece + file.readline()
