"""Step time and hardware of a run, which may change when it resumes, and the modelled seconds that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainlarge.config.group import Plain


@dataclass(frozen=True, kw_only=True)
class SavedTiming:
    """Key ``pace`` of a saved state: how its steps were computed."""

    environments: list[dict[str, Plain]]
    """How steps were computed, oldest first: ``before`` and ``environment`` of the run."""
    since: int | None = None
    """Step from which on they were computed as in the last one; None in older states."""
    model_seconds: float
    """Modelled seconds of all steps."""
    seconds_before: float = 0.0
    """Modelled seconds of the steps until ``since``."""


@dataclass(frozen=True)
class RunTiming:
    """The present device and implementation, and those of the steps before a resume."""

    environment: dict[str, Plain]
    """How steps are computed now: plain data of device, implementation and sharing."""
    step_seconds: float
    """Steady-state step time now."""
    before: tuple[dict[str, Plain], ...] = ()
    """How earlier steps were computed, oldest first; empty where all were computed in one way."""
    since: int = 0
    """Step from which on they are computed as now."""
    seconds_before: float = 0.0
    """Modelled seconds of the steps until then."""

    def model_seconds(self, steps: int) -> float:
        """Modelled seconds after so many steps, at least ``since``, each counted as it was computed."""
        return self.seconds_before + (steps - self.since) * self.step_seconds

    def saved(self, steps: int) -> SavedTiming:
        """What the state after ``steps`` steps keeps of it."""
        return SavedTiming(
            environments=[*self.before, self.environment],
            since=self.since,
            model_seconds=self.model_seconds(steps),
            seconds_before=self.seconds_before,
        )

    def resumed(self, saved: SavedTiming | None, steps: int) -> RunTiming:
        """This timing after the ``steps`` of a saved state; a better step time counts for all that was computed as now.

        Args:
            saved: from the state; None in older ones, which count as computed as now.
        """
        if saved is None:
            return replace(self, before=(), since=0, seconds_before=0.0)
        past = saved.environments
        is_same = past[-1] == self.environment
        before = tuple(past[:-1] if is_same else past)
        if is_same and saved.since is not None:
            return replace(self, before=before, since=saved.since, seconds_before=saved.seconds_before)
        return replace(self, before=before, since=steps, seconds_before=saved.model_seconds)
