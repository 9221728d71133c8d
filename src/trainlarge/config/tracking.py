"""The group ``tracking``: the mirror of the study folder. One dataclass per tracker, which names its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from trainlarge.config.choices import ChosenGroup


@dataclass(frozen=True)
class TrackingConfig(ChosenGroup):
    """The mirror of the study folder (not identity)."""

    key: ClassVar[str] = "tracking"

    name: str = "none"
    """``none``, ``wandb`` (Weights & Biases) or ``csv`` (one CSV file per run)."""

    written_by: ClassVar[str | None] = None
    """Where its class is, ``module:name``: see ``trainlarge.tracking.tracker``; None where nothing is written."""

    @classmethod
    def by_name(cls) -> Mapping[str, type[TrackingConfig]]:
        """All trackers."""
        return TRACKERS


@dataclass(frozen=True)
class WandbConfig(TrackingConfig):
    """Weights & Biases."""

    name: str = "wandb"
    mode: Literal["offline", "online"] = "offline"
    """``offline`` (runs are written below the study folder) or ``online`` (they are uploaded)."""
    project: str = "trainlarge"
    """Project."""
    entity: str | None = None
    """Entity; null: the user's default."""

    written_by: ClassVar[str | None] = "trainlarge.tracking.wandb:WandbTracker"


@dataclass(frozen=True)
class CsvConfig(TrackingConfig):
    """CSV files below the study folder, one per run."""

    name: str = "csv"

    written_by: ClassVar[str | None] = "trainlarge.tracking.csv_files:CsvTracker"


TRACKERS: dict[str, type[TrackingConfig]] = {"none": TrackingConfig, "wandb": WandbConfig, "csv": CsvConfig}
"""Configuration of a tracker by its name."""
