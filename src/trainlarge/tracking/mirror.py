"""Weights & Biases as a mirror of the study folder: written from it, never read.

A train cell becomes a run with its whole curve, the trunk that it shared included; a checkpoint's compress cells become
one run with a table of recipes. Each run is written once, and again when its records have changed: ``mirror.json`` in
the train cell's folder remembers what was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from trainlarge.config.plain import to_plain
from trainlarge.config.tracking import TrackingConfig
from trainlarge.errors import UserError
from trainlarge.machine.environment import send_no_crash_reports
from trainlarge.results.frames import load_study
from trainlarge.sweep.files import make_folder, write_json
from trainlarge.sweep.store import CellFolder, Study

AXES = ("step", "tokens", "flops", "train_seconds", "model_seconds")
CURVE_AXIS = "model_seconds"
"""The x-axis that W&B's charts of a train run open with; the others can be chosen there."""
RECIPE_COLUMNS = [
    "recipe",
    "sparsity",
    "bits",
    "loss",
    "loss_increase",
    "accuracy",
    "perplexity",
    "file_bytes",
    "ideal_bytes",
    "nonzero_parameters",
    "cell",
]
_NOT_SUMMARY = frozenset({"schema", "config", "files"})


@dataclass(frozen=True)
class MirrorRun:
    """One run, as it is to be written."""

    id: str
    """Run id: the train cell's, with ``-compress`` for its recipes."""
    name: str
    """What a person reads."""
    stage: str
    """``train`` or ``compress``: the run's job type."""
    config: dict[str, Any]
    """The train cell's configuration."""
    rows: list[dict[str, Any]]
    """History, in order."""
    axes: dict[str, str]
    """Metric (or pattern) -> its x-axis."""
    summary: dict[str, Any]
    """Numbers of the record."""
    table: pd.DataFrame | None = None
    """Recipes, for a compress run."""

    @property
    def digest(self) -> str:
        """Changes with anything that the run tells."""
        told = [self.name, self.config, self.rows, self.summary, None if self.table is None else self.table.to_csv()]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]


def mirror_study(study: Study, tracking: TrackingConfig) -> int:
    """Write the runs of a study that the mirror does not have yet, or not as they are now.

    Args:
        study: what to mirror; nothing in it changes but ``mirror.json`` and the folder ``wandb``.
        tracking: the configuration group.

    Returns:
        Number of runs written.

    Raises:
        UserError: where the folder ``wandb`` is a link, or where Weights & Biases refuses: online without a login or a
            network.
    """
    return MIRRORS[tracking.name](study, tracking)


def _mirror_nothing(_study: Study, _tracking: TrackingConfig) -> int:
    return 0


def _mirror_wandb(study: Study, tracking: TrackingConfig) -> int:
    return sum(_write_if_new(study, run, tracking.plain) for run in runs_of(study))


MIRRORS: dict[str, Callable[[Study, TrackingConfig], int]] = {"none": _mirror_nothing, "wandb": _mirror_wandb}
"""``tracking.name`` -> what writes the mirror."""


def runs_of(study: Study) -> Iterator[MirrorRun]:
    """The runs that mirror a study as it is now; a damaged record is left out with a warning."""
    if not any(folder.is_done() for folder in study.folders("train")):
        return
    frames = load_study(study, strict=False, allow_mixed=True)
    for cell in frames.cells.to_dict("records"):
        folder = study.folder("train", cell["cell"])
        name = f"{cell['series']}, {cell['budget']}, seed {cell['seed']}"
        yield _train_run(folder, name)
        recipes = frames.compression[frames.compression["parent"] == cell["cell"]]
        if len(recipes):
            yield _compress_run(folder, name, recipes)


def _train_run(folder: CellFolder, name: str) -> MirrorRun:
    record = folder.record()
    summary = {key: value for key, value in record.items() if key not in _NOT_SUMMARY}
    axes = dict.fromkeys(("loss", "accuracy", "train_loss", "lr"), CURVE_AXIS)
    return MirrorRun(folder.id, name, "train", record["config"], folder.metrics(record), axes, summary)


def _compress_run(folder: CellFolder, name: str, recipes: pd.DataFrame) -> MirrorRun:
    table = recipes.sort_values(["file_bytes", "cell"])[RECIPE_COLUMNS].reset_index(drop=True)
    curve = ["file_bytes", "loss", "accuracy", "loss_increase"]
    rows = json.loads(table[curve].to_json(orient="records", double_precision=15))
    axes = dict.fromkeys(curve[1:], "file_bytes")
    summary = {
        "recipes": len(table),
        "best_loss": float(table["loss"].min()),
        "smallest_file_bytes": int(table["file_bytes"].min()),
    }
    config = to_plain(folder.cell().config)
    return MirrorRun(f"{folder.id}-compress", f"{name}, compressed", "compress", config, rows, axes, summary, table)


def _write_if_new(study: Study, run: MirrorRun, target: dict[str, Any]) -> bool:
    marker = study.folder("train", run.id.partition("-")[0]).path / "mirror.json"
    written = _read_marker(marker)
    entry = {**target, "record": run.digest}
    if written.get(run.id) == entry:
        return False
    _write(study, run, target)
    write_json(marker, {**written, run.id: entry})
    return True


def _read_marker(path: Path) -> dict[str, Any]:
    """What was mirrored; nothing, so that all is mirrored again, where the marker cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _write(study: Study, run: MirrorRun, target: dict[str, Any]) -> None:
    # An offline mirror must not send crash reports either.
    send_no_crash_reports()
    import wandb.errors

    try:
        _write_run(study, run, target)
    except wandb.errors.Error as error:
        says = f"a Weights & Biases that takes the runs; it says: {error}"
        raise UserError("tracking.mode", target["mode"], says) from error


def _write_run(study: Study, run: MirrorRun, target: dict[str, Any]) -> None:
    import wandb

    make_folder(study.path / "wandb")
    with wandb.init(
        id=run.id,
        name=run.name,
        group=study.name,
        job_type=run.stage,
        config=run.config,
        dir=study.path,
        mode=target["mode"],
        project=target["project"],
        entity=target["entity"],
        settings=_quiet_settings(),
    ) as writer:
        for axis in AXES if run.stage == "train" else ("file_bytes",):
            writer.define_metric(axis)
        for metric, axis in run.axes.items():
            writer.define_metric(metric, step_metric=axis)
        for row in run.rows:
            writer.log({key: value for key, value in row.items() if value is not None})
        if run.table is not None:
            writer.log({"recipes_table": wandb.Table(dataframe=run.table)})
        writer.summary.update(run.summary)


def _quiet_settings() -> Any:
    """Settings that print nothing and look at nothing but what is logged: a run takes hundredths of a second."""
    import wandb

    return wandb.Settings(
        console="off",
        silent=True,
        quiet=True,
        disable_git=True,
        disable_code=True,
        save_code=False,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
