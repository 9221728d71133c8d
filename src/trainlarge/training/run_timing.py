"""Step time and hardware of a run, which may change when it resumes, and the modelled seconds that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class RunTiming:
    """The present device and implementation, and those of the steps before a resume."""

    environment: dict[str, Any]
    """How steps are computed now: plain data of device, implementation and sharing."""
    step_seconds: float
    """Steady-state step time now."""
    before: tuple[dict[str, Any], ...] = ()
    """How earlier steps were computed, oldest first; empty where all were computed in one way."""
    since: int = 0
    """Step from which on they are computed as now."""
    seconds_before: float = 0.0
    """Modelled seconds of the steps until then."""

    def model_seconds(self, steps: int) -> float:
        """Modelled seconds after so many steps, at least ``since``, each counted as it was computed."""
        return self.seconds_before + (steps - self.since) * self.step_seconds

    def to_json(self, steps: int) -> dict[str, Any]:
        """Plain data for the state after ``steps`` steps."""
        seconds = {"model_seconds": self.model_seconds(steps), "seconds_before": self.seconds_before}
        return {"environments": [*self.before, self.environment], "since": self.since, **seconds}

    def resumed(self, saved: dict[str, Any] | None, steps: int) -> RunTiming:
        """This timing after the ``steps`` of a saved state; a better step time counts for all that was computed as now.

        Args:
            saved: from ``to_json``; None in a state that is older than it: taken to be computed as now.
        """
        if saved is None:
            return replace(self, before=(), since=0, seconds_before=0.0)
        past = saved["environments"]
        is_same = past[-1] == self.environment
        if is_same and "since" in saved:
            since, seconds = saved["since"], saved["seconds_before"]
        else:
            since, seconds = steps, saved["model_seconds"]
        return replace(self, before=tuple(past[:-1] if is_same else past), since=since, seconds_before=seconds)
