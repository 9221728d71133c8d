"""CSV files as a mirror: ``<study>/csv/<run>.csv`` has a row for each point of the run's history."""

from __future__ import annotations

import csv
import io
from typing import ClassVar

from trainlarge.config.tracking import CsvConfig
from trainlarge.sweep.files import make_folder, write_text
from trainlarge.sweep.store import Study
from trainlarge.tracking.tracker import TrackedRun

FOLDER = "csv"
"""Folder of the files in a study."""


class CsvTracker:
    """Writes each run to a file of its own."""

    label: ClassVar[str] = "CSV files"

    def __init__(self, config: CsvConfig) -> None: ...

    def write(self, study: Study, run: TrackedRun) -> None:
        """Write one run; a number that is not known is an empty field."""
        columns = list(dict.fromkeys(key for row in run.rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(run.rows)
        make_folder(study.path / FOLDER, inside=study.path)
        write_text(study.path / FOLDER / f"{run.id}.csv", text.getvalue())
