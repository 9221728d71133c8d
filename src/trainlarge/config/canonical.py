"""Plain data as text that is the same for equal data: what ids and names of files are made of."""

from __future__ import annotations

import json
import math


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, the same text for equal data.

    Raises:
        TypeError: for anything that is not plain data (dict with text keys, list, text, int, finite float, bool, None).
    """
    if not _is_plain(value):
        _refuse_foreign(value, "configuration")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _is_plain(value: object) -> bool:
    # The very types, which is faster: this is asked of every value of every cell.
    if type(value) is dict:
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(_is_plain, value))
    return math.isfinite(value) if type(value) is float else type(value) in _PLAIN_TYPES


def _refuse_foreign(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"{where}: key {key!r} is not text")
            _refuse_foreign(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_foreign(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where}: {value!r} is not a finite number")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise TypeError(f"{where}: {type(value).__name__} is not plain data")


_PLAIN_TYPES = frozenset({str, int, bool, type(None)})
