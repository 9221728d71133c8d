"""The group ``schedule``: the learning rate over steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainlarge.config.group import Group
from trainlarge.config.reads import read_with

ScheduleName = Literal["cooldown", "matched", "fixed"]
DecayShape = Literal["1-sqrt", "linear", "cosine"]


@dataclass(frozen=True)
class ScheduleConfig(Group):
    """The learning rate over steps."""

    key: ClassVar[str] = "schedule"

    name: ScheduleName = "cooldown"
    """``cooldown`` (constant trunk, a decay branch for each budget), ``matched`` (decay ends with the budget) or
    ``fixed`` (decay ends at ``horizon``)."""
    warmup_steps: int = 50
    """Steps of linear warm-up from zero."""
    decay_share: float = field(default=0.2, metadata=read_with(name="cooldown"))
    """Share of a budget that the decay branch of ``cooldown`` takes, in (0, 1)."""
    decay_shape: DecayShape = "1-sqrt"
    """Shape of the decay: ``1-sqrt``, ``linear`` or ``cosine``."""
    horizon: str | None = field(default=None, metadata=read_with(name="fixed"))
    """Budget at which the schedule of ``fixed`` ends; no budget may be larger."""

    def check(self) -> None:
        self.require_whole(0, "warmup_steps")
        is_known = self.name != "fixed" or self.horizon is not None
        self.require("horizon", is_known, "set: the budget at which schedule=fixed ends, as in '1e15 FLOPs'")
        self.require("decay_share", 0 < self.decay_share < 1, "a number in (0, 1)")
