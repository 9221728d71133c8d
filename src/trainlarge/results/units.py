"""Units and labels of figure axes, and how their values are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trainlarge.errors import UserError

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_TIMES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_LONG_TIME = 5
"""A time unit is used from this many of it on: 300 s are 5 min, 60 s stay 60 s."""


@dataclass(frozen=True)
class Scale:
    """A column that can be an axis."""

    label: str
    """What stands at the axis of a figure, with its unit."""
    words: str
    """What stands in a sentence after "at equal"."""
    write: Callable[[float], str]
    """A value as text with its unit."""


def seconds_text(value: float) -> str:
    """``7.48`` as ``7.5 s``, ``1800`` as ``30 min``: a third digit is noise in a time, below 100 of its unit."""
    scale, unit = next(((scale, unit) for scale, unit in _TIMES if value >= _LONG_TIME * scale), _TIMES[-1])
    return f"{significant(value / scale, digits=2 if value < 100 * scale else 3)} {unit}"


def prefixed_text(unit: str) -> Callable[[float], str]:
    """A writer with decimal prefixes: ``2e12`` as ``2 TFLOPs``, ``454000`` as ``454 kB``."""

    def write(value: float) -> str:
        scale, prefix = next(((scale, prefix) for scale, prefix in _PREFIXES if value >= scale), _PREFIXES[-1])
        return f"{significant(value / scale)} {prefix}{unit}"

    return write


def counted_text(unit: str) -> Callable[[float], str]:
    """A writer of whole numbers: ``4206`` as ``4,206 steps``, with three digits that count from 10,000 on."""

    def write(value: float) -> str:
        return f"{float(f'{value:.3g}') if value >= 1e4 else round(value):,.0f} {unit}"

    return write


def significant(value: float, digits: int = 3) -> str:
    """A number with at most ``digits`` digits that count, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{round(value, digits - 1 - math.floor(math.log10(abs(value)))):.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


SCALES = {
    "model_seconds": Scale(
        "training time on this device (s, steps × steady-state step time)", "training time", seconds_text
    ),
    "train_seconds": Scale("training time as measured (s)", "measured training time", seconds_text),
    "flops": Scale("training FLOPs", "FLOPs", prefixed_text("FLOPs")),
    "tokens": Scale("training tokens", "tokens", prefixed_text("tokens")),
    "step": Scale("training steps", "steps", counted_text("steps")),
    "total_flops": Scale("training FLOPs, recovery included", "FLOPs", prefixed_text("FLOPs")),
    "total_seconds": Scale("training time as measured, recovery included (s)", "measured training time", seconds_text),
    "parameters": Scale("parameters, embeddings included", "parameters", prefixed_text("")),
    "file_bytes": Scale("packed file (bytes)", "file size", prefixed_text("B")),
    "ideal_bytes": Scale("bits of the non-zero parameters (bytes)", "ideal size", prefixed_text("B")),
    "nonzero_parameters": Scale("non-zero parameters", "non-zero parameters", prefixed_text("")),
}
"""Column -> axis."""


def scale_of(column: str) -> Scale:
    """The axis of a column.

    Raises:
        UserError: for a column that is none.
    """
    if column not in SCALES:
        raise UserError("x", column, f"one of {', '.join(SCALES)}")
    return SCALES[column]
