"""The group ``tracking``: the mirror of the study folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trainlarge.config.group import Group


@dataclass(frozen=True)
class TrackingConfig(Group):
    """The mirror of the study folder (not identity)."""

    key: ClassVar[str] = "tracking"

    name: Literal["none", "wandb"] = "wandb"
    """``none`` or ``wandb``."""
    mode: Literal["offline", "online"] = "offline"
    """Weights & Biases mode: ``offline`` or ``online``."""
    project: str = "trainlarge"
    """Weights & Biases project."""
    entity: str | None = None
    """Weights & Biases entity."""
