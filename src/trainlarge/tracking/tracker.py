"""The interface of a tracker: one kind of mirror of a study. A tracker is found by ``tracking.name``.

To add one: a dataclass in ``config/tracking.py``, a file here, a file in ``conf/tracking/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import pandas as pd

from trainlarge.config.group import Plain
from trainlarge.config.tracking import TrackingConfig
from trainlarge.sweep.store import Study


@dataclass(frozen=True)
class TrackedRun:
    """One run, as it is to be written."""

    id: str
    """Run id: the cell's; with ``-compress``, of all recipes of a train cell or of a Hugging Face folder's digest."""
    name: str
    """What a person reads."""
    stage: str
    """``train`` or ``compress``."""
    config: Mapping[str, Plain]
    """The cell's configuration; of a Hugging Face folder what it is evaluated on."""
    rows: list[dict[str, Plain]]
    """History, in order; None stands for a number that is not known."""
    axes: dict[str, str]
    """Metric (or pattern) -> its x-axis."""
    summary: dict[str, Plain]
    """Numbers of the record."""
    home: Path
    """Folder in which it is remembered that the run was written: the cell's, or the study's where there is no cell."""
    table: pd.DataFrame | None = None
    """Recipes, for a compress run."""

    @property
    def digest(self) -> str:
        """Changes with anything that the run says."""
        table = None if self.table is None else self.table.to_csv()
        content = [self.name, self.config, self.rows, self.summary, table]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Tracker(Protocol):
    """Writes the runs of a study to one kind of mirror."""

    label: ClassVar[str]
    """What a person calls it."""

    def __init__(self, config: TrackingConfig) -> None:
        """A tracker with its own dataclass of ``trainlarge.config.tracking``."""

    def write(self, study: Study, run: TrackedRun) -> None:
        """Write one run whole, in place of an older one of its id.

        Raises:
            UserError: where the mirror refuses it.
        """
