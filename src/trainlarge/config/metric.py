"""What a number that a task is scored by means: its unit, its direction, and which differences count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation."""

    unit: str
    """Unit of a value: ``nats per token``; ``1`` for a share."""
    meaning: str
    """The metric in words, as in a title: ``evaluation loss``."""
    higher_is_better: bool = False
    """Whether a larger value is the better one."""
    tie: float = 0.0
    """Differences below this count as ties where no interval is known: a rule of thumb, no test."""
    negligible: float = 0.0
    """A change for the worse whose interval ends below this counts as none."""
    broken: float = float("inf")
    """A change for the worse from which a compressed model is not worth comparing."""

    @property
    def short_unit(self) -> str:
        """Unit of a value within a sentence: ``nats``."""
        return self.unit.partition(" per ")[0]

    def amount(self, value: float) -> str:
        """A value with its unit, within a sentence: ``0.1 nats``, ``1 nat``."""
        return f"{value:g} {self.short_unit.removesuffix('s') if value == 1 else self.short_unit}"
