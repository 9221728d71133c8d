"""How much training a checkpoint has had, with its unit: ``2e12 FLOPs``, ``10M tokens``, ``3 epochs``, ``30 min``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache, total_ordering

from trainlarge.errors import UserError

FLOPS, TOKENS, STEPS, SECONDS, EPOCHS = "FLOPs", "tokens", "steps", "s", "epochs"

_COUNTED = {
    **dict.fromkeys(("flop", "flops"), FLOPS),
    **dict.fromkeys(("token", "tokens"), TOKENS),
    **dict.fromkeys(("step", "steps"), STEPS),
    **dict.fromkeys(("epoch", "epochs"), EPOCHS),
}
"""Words that may have a prefix -> the unit."""
_PREFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12, "p": 10**15, "e": 10**18}
"""Prefix in lower case -> factor; ``b`` is a billion."""
_TIMES = {
    "ms": Decimal("0.001"),
    **dict.fromkeys(("s", "sec", "second", "seconds"), Decimal(1)),
    **dict.fromkeys(("min", "minute", "minutes"), Decimal(60)),
    **dict.fromkeys(("h", "hour", "hours"), Decimal(3600)),
    **dict.fromkeys(("d", "day", "days"), Decimal(86400)),
}
"""Word for a time -> seconds."""
_FIRST_WORDS = {
    *(word for word in _TIMES if word != "ms"),
    *(word for word, unit in _COUNTED.items() if unit != EPOCHS),
    *(f"{prefix}{word}" for prefix in _PREFIXES if prefix != "b" for word in ("flop", "flops")),
}
"""The units that the first version of this program knew."""
_PART = re.compile(
    r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]+)(?:\s+([a-z]+))?\s*",
    re.IGNORECASE | re.ASCII,
)
"""A number, then a unit, or a prefix and a unit."""
_SHOWN_PREFIXES = ((10**18, "E"), (10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_PREFIXED_FROM = {FLOPS: 10**3, TOKENS: 10**3, STEPS: 10**6, EPOCHS: 10**6}
"""Unit -> the least amount that is shown with a prefix: 1000 steps are easier to read than 1k steps."""
_SHOWN_TIMES = ((86400, "d"), (3600, "h"), (60, "min"))
_LEAST_SHOWN = 5
"""A unit of time is shown from so many of it on: 300 s are 5 min, 60 s stay 60 s."""
_SHORT = 4
"""Characters of a number in such a unit: 450 s are 7.5 min, 500 s stay 500 s."""
TIME_ALLOWED = "a time with its unit: '30 min', '4 h', '1 h 30 min', '1 d'"
ALLOWED = (
    "a positive number with its unit, as in '500 steps', '10M tokens', '2e12 FLOPs', '3 epochs' or '1 h 30 min'; "
    "units: steps, tokens, FLOPs, epochs, also with k, M, G, T, P or E before them, and ms, s, min, h, d"
)


@total_ordering
@dataclass(frozen=True)
class Budget:
    """An amount of training with its unit.

    Budgets of one unit are ordered; a bare number is compared in the base unit (FLOPs, tokens, steps, epochs, seconds).
    """

    value: float
    """Amount in the base unit."""
    unit: str
    """One of ``FLOPs``, ``tokens``, ``steps``, ``epochs``, ``s``."""

    def __str__(self) -> str:
        """The one form in which it is part of an id, whatever it was written like: ``1000 steps`` for ``1k steps``."""
        return f"{self.value:.12g} {self.unit}"

    @property
    def in_words(self) -> str:
        """As people read it: ``150 GFLOPs``, ``10M tokens``, ``30 min``. Parsed, it is the same budget."""
        if self.unit == SECONDS:
            return self._time_in_words()
        scale, prefix = next((each for each in _SHOWN_PREFIXES if self.value >= each[0]), (1, ""))
        if self.value < _PREFIXED_FROM[self.unit]:
            return f"1 {self.unit.removesuffix('s')}" if self.value == 1 else str(self)
        number = f"{self.value / scale:.12g}"
        return f"{number} {prefix}{self.unit}" if self.unit == FLOPS else f"{number}{prefix} {self.unit}"

    def _time_in_words(self) -> str:
        for scale, unit in _SHOWN_TIMES:
            number = f"{self.value / scale:.12g}"
            if self.value >= _LEAST_SHOWN * scale and len(number) <= _SHORT:
                return f"{number} {unit}"
        return str(self)

    def __eq__(self, other: object) -> bool:
        other = _comparable(other, self.unit)
        return isinstance(other, Budget) and (self.value, self.unit) == (other.value, other.unit)

    def __lt__(self, other: object) -> bool:
        other = _comparable(other, self.unit)
        if not isinstance(other, Budget) or other.unit != self.unit:
            raise UserError("budget", other, f"a budget in {self.unit}, to compare with {self}")
        return self.value < other.value

    def __hash__(self) -> int:
        return hash((self.value, self.unit))


def parse_budget(text: object, key: str = "budget") -> Budget:
    """Read ``"30 min"`` as ``Budget(1800.0, "s")``.

    Raises:
        UserError: for a missing or unknown unit, or a value that is not a positive finite number.
    """
    if not isinstance(text, str):
        raise UserError(key, text, ALLOWED)
    return _parsed(text, key)


def parse_time(text: object, key: str) -> float:
    """Seconds of a time with its unit: ``"1 h 30 min"`` is 5400.

    Raises:
        UserError: for what is no time.
    """
    try:
        time = parse_budget(text)
    except UserError:
        time = None
    if time is None or time.unit != SECONDS:
        raise UserError(key, text, TIME_ALLOWED)
    return time.value


def kept_form(text: str, key: str) -> str:
    """What is kept of a budget that was always part of an id as it is written: of ``1k steps``, ``1000 steps``.

    Text that the first version could read stays as it is, and so do the ids that were made with it.

    Raises:
        UserError: for what is no budget.
    """
    budget, match = parse_budget(text, key), _PART.fullmatch(text)
    is_first_form = match is not None and match[3] is None and "_" not in match[1] and match[2].lower() in _FIRST_WORDS
    return text if is_first_form else str(budget)


@lru_cache(maxsize=1024)
def _parsed(text: str, key: str) -> Budget:
    parts = _parts(text)
    units, scales = {part.unit for part in parts}, [part.scale for part in parts]
    # Several numbers are a time, from its largest unit down: "1 h 30 min".
    is_time = units == {SECONDS} and scales == sorted(set(scales), reverse=True)
    value = float(sum(part.number * part.scale for part in parts)) if len(parts) == 1 or is_time else 0.0
    if not (math.isfinite(value) and value > 0):
        raise UserError(key, text, ALLOWED)
    return Budget(value, parts[0].unit)


@dataclass(frozen=True)
class _Part:
    """A number with its unit."""

    number: Decimal
    unit: str
    scale: Decimal
    """What the number is to be multiplied by to be in the base unit."""


def _parts(text: str) -> list[_Part]:
    """All numbers of a text with their units; empty where a part of it is no such thing."""
    parts, end = list[_Part](), 0
    while match := _PART.match(text, end):
        measure = _measure(match[2].lower(), (match[3] or "").lower())
        if measure is None:
            return []
        try:
            parts.append(_Part(Decimal(match[1]), *measure))
        except ArithmeticError:
            return []
        end = match.end()
    return parts if end == len(text) else []


def _measure(word: str, second: str) -> tuple[str, Decimal] | None:
    """Unit and scale of ``min``, ``PFLOPs``, ``M tokens``; None for what is none."""
    if not second and word in _TIMES:
        return SECONDS, _TIMES[word]
    prefix, counted = (word, second) if second else ("", word)
    if counted not in _COUNTED and not second:
        prefix, counted = word[:1], word[1:]
    if counted not in _COUNTED or (prefix and prefix not in _PREFIXES):
        return None
    return _COUNTED[counted], Decimal(_PREFIXES.get(prefix, 1))


def _comparable(other: object, unit: str) -> object:
    if isinstance(other, str):
        return parse_budget(other)
    if isinstance(other, (int, float)) and not isinstance(other, bool):
        return Budget(float(other), unit)
    return other
