"""Mirrors of a study folder: written from it, never read.

A train cell becomes a run with its whole curve, the trunk that it shared included; a checkpoint's compress cells become
one run with a table of recipes, and each recipe that trains becomes one more. Each run is written once, and again when
its records have changed: ``mirror.json`` in the cell's folder remembers what was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name
from typing import cast

import pandas as pd

from trainlarge.config.group import Plain
from trainlarge.config.plain import to_plain
from trainlarge.config.tracking import TrackingConfig
from trainlarge.results.frames import load_study
from trainlarge.results.model_folders import of_folders
from trainlarge.results.scores import all_scores
from trainlarge.sweep.files import read_json, refuse_links, write_json
from trainlarge.sweep.recorded import meaning
from trainlarge.sweep.records import CompressRecord
from trainlarge.sweep.secrets import without_secrets
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tracking.tracker import TrackedRun, Tracker

CURVE_AXIS = "model_seconds"
"""The x-axis that charts of a train run open with."""
_NOT_SUMMARY = frozenset({"schema", "config", "files"})


def recipe_columns(scores: Sequence[str]) -> list[str]:
    """The columns of a table of recipes: the scores of their task, and what ``CompressRecord`` says at its fields."""
    columns: list[str] = []
    for item in fields(CompressRecord):
        known = meaning(item)
        if item.name == "scores":
            columns += scores
        elif known and known.in_table:
            columns.append(known.column or item.name)
    return [*columns, "cell"]


def mirror_study(study: Study, config: TrackingConfig) -> int:
    """Write the runs of a study that the mirror does not have yet, or not as they are now.

    Args:
        study: what to mirror; nothing in it changes but the files ``mirror.json`` and what the tracker writes.
        config: the tracker's configuration.

    Returns:
        Number of runs written.

    Raises:
        UserError: where the mirror refuses a run.
    """
    if config.written_by is None:
        return 0
    tracker = tracker_class(config)(config)
    return sum(_write_if_new(tracker, config, study, run) for run in runs_of(study))


def tracker_class(config: TrackingConfig) -> type[Tracker]:
    """What writes the mirror of a configuration that has one."""
    return cast(type[Tracker], resolve_name(config.written_by or ""))


def runs_of(study: Study) -> Iterator[TrackedRun]:
    """The runs that mirror a study as it is now; a damaged record is left out with a warning."""
    if not any(folder.is_done() for folder in study.folders("train")) and not _has_model_folders(study):
        return
    frames = load_study(study, strict=False, allow_mixed=True)
    for cell in frames.cells.to_dict("records"):
        folder = study.folder("train", cell["cell"])
        name = f"{cell['series']}, {cell['budget']}, seed {cell['seed']}"
        yield _cell_run(folder, name, CURVE_AXIS)
        recipes = frames.compression[frames.compression["parent"] == cell["cell"]]
        if len(recipes):
            config = without_secrets(to_plain(folder.cell().config))
            yield _compress_run(folder.id, f"{name}, compressed", config, recipes, folder.path)
        for recipe in recipes[recipes["recover_steps"] > 0].to_dict("records"):
            yield _cell_run(study.folder("compress", recipe["cell"]), f"{name}, {recipe['recipe']}", "step")
    for (folder_name, digest), recipes in of_folders(frames.compression).groupby(["checkpoint", "parent"]):
        config = without_secrets(to_plain(study.folder("compress", recipes["cell"].iloc[0]).cell().config))
        shared = {key: config.get(key) for key in ("checkpoint", "checkpoint_digest", "data", "task")}
        yield _compress_run(str(digest), f"{folder_name}, compressed", shared, recipes, study.path)


def _has_model_folders(study: Study) -> bool:
    """Whether a model of a Hugging Face folder was compressed."""
    done = (folder for folder in study.folders("compress") if folder.is_done())
    return any(folder.cell().as_compress.checkpoint_digest for folder in done)


def _cell_run(folder: CellFolder, name: str, x_axis: str) -> TrackedRun:
    """The curve of one cell: of a train cell, or of the training inside a recipe."""
    # Once more: versions before left secrets in records.
    record = without_secrets(folder.record_data())
    summary = {key: value for key, value in record.items() if key not in _NOT_SUMMARY}
    config, axes = record["config"], dict.fromkeys(("loss", "accuracy", "train_loss", "lr"), x_axis)
    plain_config = config if isinstance(config, dict) else {}
    return TrackedRun(folder.id, name, folder.stage, plain_config, folder.metrics(record), axes, summary, folder.path)


def _compress_run(parent: str, name: str, config: Mapping[str, Plain], recipes: pd.DataFrame, home: Path) -> TrackedRun:
    scores = [name for name in all_scores() if recipes[name].notna().any()]
    table = recipes.sort_values(["file_bytes", "cell"])[recipe_columns(scores)].reset_index(drop=True)
    curve = ["file_bytes", "loss", "accuracy", "loss_increase"]
    rows = json.loads(table[curve].to_json(orient="records", double_precision=15))
    axes = dict.fromkeys(curve[1:], "file_bytes")
    summary: dict[str, Plain] = {
        "recipes": len(table),
        "best_loss": float(table["loss"].min()),
        "smallest_file_bytes": int(table["file_bytes"].min()),
    }
    return TrackedRun(f"{parent}-compress", name, "compress", config, rows, axes, summary, home, table)


def _write_if_new(tracker: Tracker, config: TrackingConfig, study: Study, run: TrackedRun) -> bool:
    marker = run.home / "mirror.json"
    written, entry = _read_marker(marker), {**config.plain, "record": run.digest}
    key = f"{config.name} {run.id}"
    # The entry under the id alone was written when there was one tracker only.
    if entry in (written.get(key), written.get(run.id)):
        return False
    refuse_links(marker.parent, inside=study.path)
    tracker.write(study, run)
    write_json(marker, {**written, key: entry})
    return True


def _read_marker(path: Path) -> dict[str, Plain]:
    """What was mirrored; nothing, so that all is mirrored again, where the marker cannot be read."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
