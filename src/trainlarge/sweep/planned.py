"""Train cells that a command will train before others need them: what of them is known by then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainlarge.config.schema import TrainConfig


@dataclass(frozen=True)
class PlannedCell:
    """A train cell that is not done yet."""

    config: TrainConfig
    """Its full configuration."""
    steps: int | None
    """Optimizer steps of its budget; None for a budget in seconds while no step is timed."""
    is_trained_on: bool = False
    """Whether it is done and will have other weights: what was made of it is made again."""


Planned = Mapping[str, PlannedCell]
"""Id -> train cell, as those whose checkpoints compress cells of the same study will compress."""
NOTHING_PLANNED: Planned = {}
"""Every checkpoint must be there."""
