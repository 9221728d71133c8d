"""Rows of dictionaries as columns: a study has ten thousand records of a hundred keys, and a hundred thousand rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = dict[str, list[object]]
"""Key -> its value in each row."""
Values: TypeAlias = NDArray[np.int64] | NDArray[np.float64] | list[object]
"""What pandas makes a column of."""


class Nested:
    """Dictionaries in dictionaries, such as records, whose values are found by a dotted path.

    The dictionaries of each level become columns once, when something below them is asked for first.
    """

    def __init__(self, rows: Sequence[object]) -> None:
        self._levels = {"": columns_of(rows)}
        self._nothing: list[object] = [None] * len(rows)

    def values(self, path: str) -> list[object]:
        """What the path leads to in each row; None where it ends early."""
        parents, _, key = path.rpartition(".")
        return self._level(parents).get(key, self._nothing)

    def _level(self, path: str) -> Columns:
        if path not in self._levels:
            parents, _, key = path.rpartition(".")
            self._levels[path] = columns_of(self._level(parents).get(key, []))
        return self._levels[path]


def columns_of(rows: Sequence[object], absent: object = None) -> Columns:
    """Key -> its value in each row, ``absent`` where a row does not have it or is no dictionary.

    Keys are in the order in which the rows have them first.
    """
    kinds = dict.fromkeys(tuple(row) if type(row) is dict else () for row in rows)
    if len(kinds) == 1:
        # Nearly always all rows have the same keys. One walk over all values, in the order in which they are in memory,
        # takes a third of the time of one walk for each key.
        (keys,) = kinds
        dictionaries = cast(Sequence[dict[str, object]], rows)
        values = list(chain.from_iterable(map(dict.values, dictionaries))) if keys else []
        return {key: values[place :: len(keys)] for place, key in enumerate(keys)}
    mappings = [row if type(row) is dict else {} for row in rows]
    return {key: [row.get(key, absent) for row in mappings] for key in dict.fromkeys(chain.from_iterable(kinds))}


def as_array(values: list[object]) -> Values:
    """Floats, or whole numbers of 64 bits, as an array, None as NaN; any other list as it is.

    Pandas does the same, but looks at each value several times.
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            return np.array(values, np.float64)
    is_float = float in kinds and kinds <= {float, int, type(None)}
    return np.array(values, np.float64) if is_float else values
