"""Rows of dictionaries as columns: a study has ten thousand records of a hundred keys, and a hundred thousand rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np


def columns_of(rows: Sequence[Any], absent: Any = None) -> dict[str, list[Any]]:
    """Key -> its value in each row, ``absent`` where a row does not have it or is no dictionary.

    Keys are in the order in which the rows have them first.
    """
    kinds = dict.fromkeys(tuple(row) if type(row) is dict else () for row in rows)
    if len(kinds) == 1:
        # Nearly always all rows have the same keys. One walk over all values, in the order in which they lie in memory,
        # takes a third of the time of one walk for each key.
        (keys,) = kinds
        values = list(chain.from_iterable(map(dict.values, rows))) if keys else []
        return {key: values[place :: len(keys)] for place, key in enumerate(keys)}
    some = [row if type(row) is dict else {} for row in rows]
    return {key: [row.get(key, absent) for row in some] for key in dict.fromkeys(chain.from_iterable(kinds))}


def as_array(values: list[Any]) -> Any:
    """Floats, or whole numbers of 64 bits, as an array, None as NaN; any other list as it is.

    Pandas does the same, but looks at each value several times.
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            return np.array(values, np.int64)
        except OverflowError:
            return np.array(values, float)
    is_float = float in kinds and kinds <= {float, int, type(None)}
    return np.array(values, float) if is_float else values
