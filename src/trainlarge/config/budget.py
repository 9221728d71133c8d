"""How much training a checkpoint has had, with its unit: ``2e12 FLOPs``, ``1e9 tokens``, ``500 steps``, ``30 min``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering

from trainlarge.errors import UserError

FLOPS, TOKENS, STEPS, SECONDS = "FLOPs", "tokens", "steps", "s"

_PREFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
_SCALES: dict[str, tuple[str, float]] = {
    **dict.fromkeys(("flop", "flops"), (FLOPS, 1.0)),
    **{f"{letter}flop": (FLOPS, scale) for letter, scale in _PREFIXES.items()},
    **{f"{letter}flops": (FLOPS, scale) for letter, scale in _PREFIXES.items()},
    **dict.fromkeys(("token", "tokens"), (TOKENS, 1.0)),
    **dict.fromkeys(("step", "steps"), (STEPS, 1.0)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), (SECONDS, 1.0)),
    **dict.fromkeys(("min", "minute", "minutes"), (SECONDS, 60.0)),
    **dict.fromkeys(("h", "hour", "hours"), (SECONDS, 3600.0)),
    **dict.fromkeys(("d", "day", "days"), (SECONDS, 86400.0)),
}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)\s*")
ALLOWED = "a positive number with its unit, FLOPs (also kFLOPs to EFLOPs), tokens, steps, s, min, h or d: '2e12 FLOPs'"


@total_ordering
@dataclass(frozen=True)
class Budget:
    """An amount of training with its unit.

    Budgets of one unit are ordered; a bare number is compared in the base unit (FLOPs, tokens, steps, seconds).
    """

    value: float
    """Amount in the base unit."""
    unit: str
    """One of ``FLOPs``, ``tokens``, ``steps``, ``s``."""

    def __str__(self) -> str:
        return f"{self.value:.12g} {self.unit}"

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
    return _parsed(str(text), key)


@lru_cache(maxsize=1024)
def _parsed(text: str, key: str) -> Budget:
    match = _NUMBER_AND_UNIT.fullmatch(text)
    scale = _SCALES.get(match[2].lower()) if match else None
    if match is None or scale is None:
        raise UserError(key, text, ALLOWED)
    value = _positive(match[1], key, text) * scale[1]
    return Budget(value, scale[0])


def _positive(digits: str, key: str, text: str) -> float:
    try:
        value = float(digits)
    except ValueError:
        raise UserError(key, text, ALLOWED) from None
    if not (math.isfinite(value) and value > 0):
        raise UserError(key, text, ALLOWED)
    return value


def _comparable(other: object, unit: str) -> object:
    if isinstance(other, str):
        return parse_budget(other)
    if isinstance(other, (int, float)) and not isinstance(other, bool):
        return Budget(float(other), unit)
    return other
