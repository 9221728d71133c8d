"""What is wrong with the cells of a command: all cells are looked at, and each cause is told once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from trainlarge.errors import CombinedUserError, UserError, shown

SHOWN_CAUSES = 10
SHOWN_VALUES = 5
PATIENCE_SECONDS = 5.0
"""How long further causes are looked for once there is one: what is wrong with data may take long to find for each
cell."""


@dataclass
class _Cause:
    """One mistake, and what has it."""

    first: UserError
    values: dict[str, None] = field(default_factory=dict)
    """Values of the key, as texts."""
    cells: int = 0

    def line(self) -> str:
        if len(self.values) == 1:
            return str(self.first)
        some = [*list(self.values)[:SHOWN_VALUES], *(["..."] if len(self.values) > SHOWN_VALUES else [])]
        return str(UserError(self.first.key, ",".join(some), self.first.allowed))


class Causes:
    """Collects the errors of single cells.

    Args:
        total: cells that are looked at.
        noun: what they are called.
    """

    def __init__(self, total: int, noun: str = "cells") -> None:
        self._total, self._noun = total, noun
        self._causes: dict[tuple[str, str], _Cause] = {}
        self._last_look: float | None = None

    @contextmanager
    def of(self, cells: int = 1) -> Iterator[None]:
        """Keep the UserError of so many cells that the block raises; raises what there is once it took too long."""
        try:
            yield
        except CombinedUserError:
            # Counted already.
            raise
        except UserError as error:
            self._add(error, cells)

    def raise_any(self, at_least: str = "") -> None:
        """Raise what was collected, one line per cause with the number of its cells; nothing where all is well.

        Raises:
            CombinedUserError: or the error itself, where one cell was looked at.
        """
        if not self._causes:
            return
        causes = sorted(self._causes.values(), key=lambda cause: -cause.cells)
        if self._total == 1:
            raise causes[0].first
        lines = [f"{cause.line()} ({at_least}{cause.cells} of {self._total} {self._noun})" for cause in causes]
        more = [f"and {len(lines) - SHOWN_CAUSES} more causes"] if len(lines) > SHOWN_CAUSES else []
        raise CombinedUserError(causes[0].first, (*lines[:SHOWN_CAUSES], *more)) from causes[0].first

    def _add(self, error: UserError, cells: int) -> None:
        cause = self._causes.setdefault((error.key, error.allowed), _Cause(error))
        cause.values[shown(error.value)] = None
        cause.cells += cells
        self._last_look = self._last_look or time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > self._last_look:
            self.raise_any(at_least="at least ")
