"""How fast cells compute, as a frame: what ``trainlarge latency`` measured, with the quality of each cell."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from trainlarge.results.columns import Column, recorded
from trainlarge.results.frames import StudyFrames, find_study, load_study
from trainlarge.results.scores import main_score
from trainlarge.sweep.latencies import Latency, read_latencies
from trainlarge.sweep.store import Study

LATENCY = {
    **recorded(Latency),
    "rows_per_second": Column("", "1", "throughput: batch / seconds"),
    "tokens_per_second": Column("", "tokens/s", "throughput: batch * length / seconds"),
    "recipe": Column("", "text", "the recipe; empty for a train cell"),
    "series": Column("", "text", "shape and variant of the cell, or of its checkpoint"),
    "loss": Column("", "loss", "evaluation loss of the cell"),
    "task": Column("", "text", "what the model learned"),
    "score": Column("", "1", "the metric that its task is judged by"),
}
"""Column -> where it comes from, unit and meaning. One row per cell, device, runtime, batch and length."""
_OF_CELL = ("recipe", "series", "loss", "task", "score")


def load_latencies(study: str | Path | Study, frames: StudyFrames | None = None) -> pd.DataFrame:
    """What was measured of a study's cells: the columns of ``LATENCY``; no rows where nothing was measured.

    Args:
        study: its name or folder, as for ``load_study``.
        frames: its frames, where they are read already.

    Raises:
        UserError: when there is no such study, or the file is damaged.
    """
    found = find_study(study)
    rows = [row.to_json() for row in read_latencies(found)]
    frame = pd.DataFrame(rows, columns=[name for name in LATENCY if name not in _OF_CELL])
    for name, column in recorded(Latency).items():
        if column.unit == "text":
            frame[name] = frame[name].astype(object).fillna("")
    frame["rows_per_second"] = frame["batch"] / frame["seconds"]
    frame["tokens_per_second"] = frame["rows_per_second"] * frame["length"]
    if not rows:
        return frame.reindex(columns=list(LATENCY))
    return frame.join(_of_cells(frames or load_study(found, allow_mixed=True)), on="cell")


def _of_cells(frames: StudyFrames) -> pd.DataFrame:
    """What is known of each cell, by its id."""
    both = [frames.cells.assign(recipe=""), frames.compression]
    scored = [frame.assign(score=frame[main_score(frame)[0]]) for frame in both if not frame.empty]
    return pd.concat([frame[["cell", *_OF_CELL]] for frame in scored]).set_index("cell")
