"""How the steps of a run are computed, and the modelled seconds that follow: both may change when it is resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Pace:
    """The present device and implementation, and those of the steps before a resume."""

    environment: dict[str, Any]
    """How steps are computed now: plain data of device, implementation and sharing."""
    step_seconds: float
    """Settled seconds of a step now."""
    before: tuple[dict[str, Any], ...] = ()
    """How earlier steps were computed, oldest first; empty where all were computed in one way."""
    offset: float = 0.0
    """Modelled seconds of the earlier steps, less what ``step_seconds`` makes of them."""

    def model_seconds(self, steps: int) -> float:
        """Modelled seconds after so many steps, each counted as it was computed."""
        return steps * self.step_seconds + self.offset

    def to_json(self, steps: int) -> dict[str, Any]:
        """Plain data for the state after ``steps`` steps."""
        return {"environments": [*self.before, self.environment], "model_seconds": self.model_seconds(steps)}

    def resumed(self, saved: dict[str, Any] | None, steps: int) -> Pace:
        """This pace behind the ``steps`` of a saved state.

        Args:
            saved: from ``to_json``; None in a state that is older than it: taken to be computed as now.
        """
        if saved is None:
            return replace(self, before=(), offset=0.0)
        past = saved["environments"]
        before = past[:-1] if past[-1] == self.environment else past
        return replace(self, before=tuple(before), offset=saved["model_seconds"] - steps * self.step_seconds)
