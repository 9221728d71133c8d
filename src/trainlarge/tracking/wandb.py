"""Weights & Biases as a mirror: offline runs below the study folder, or uploads.

A project there holds runs of many studies and users, and two studies may have the same cell. So the id of a run there
ends with a word of its study, drawn at random: ``<study>/wandb-owner.json``, which stays with the folder.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trainlarge.config.tracking import WandbConfig
from trainlarge.errors import UserError
from trainlarge.machine.environment import send_no_crash_reports
from trainlarge.sweep.files import create_exclusively, make_folder, read_json, refuse_links, remove, write_json
from trainlarge.sweep.store import Study
from trainlarge.tracking.tracker import TrackedRun

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)

FOLDER = "wandb"
"""Folder of the client's files in a study."""
OWNER = "wandb-owner.json"
"""File of what tells the runs of a study from those of others."""
_OWNER_WORD = re.compile(r"[0-9a-f]{0,8}")
_RUN_FOLDER = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-([0-9a-f]+(?:-compress)?)(?:-[0-9a-f]{8})?(?:-\d+)?")
AXES = ("step", "tokens", "flops", "train_seconds", "model_seconds")
"""Columns of a train run that its charts may have as x-axis."""


class WandbTracker:
    """Writes each run with W&B's own client."""

    label: ClassVar[str] = "Weights & Biases"

    def __init__(self, config: WandbConfig) -> None:
        self._config = config

    def write(self, study: Study, run: TrackedRun) -> None:
        """Write one run, in the place of older files of its id.

        Raises:
            UserError: where the folder ``wandb`` is a link, or Weights & Biases refuses (no login, no network, a value
                in the environment).
        """
        # An offline mirror must not send crash reports either.
        send_no_crash_reports()
        import wandb.errors

        folder, run_id = study.path / FOLDER, "-".join(filter(None, [run.id, owner_of(study)]))
        make_folder(folder, inside=study.path)
        older = [path for path in folder.iterdir() if _run_of(path) == run.id]
        try:
            self._write(study, run, run_id)
        # A value that the client cannot read, as of a variable WANDB_..., is a ValueError of pydantic.
        except (wandb.errors.Error, ValueError, OSError) as error:
            says = f"accepted by Weights & Biases, which says: {' '.join(str(error).split())}"
            raise UserError("tracking.mode", self._config.mode, says) from error
        for path in older:
            remove(path)

    def _write(self, study: Study, run: TrackedRun, run_id: str) -> None:
        import wandb

        with wandb.init(
            id=run_id,
            name=run.name,
            group=study.name,
            job_type=run.stage,
            config=dict(run.config),
            dir=study.path,
            mode=self._config.mode,
            project=self._config.project,
            entity=self._config.entity,
            settings=_quiet_settings(),
        ) as writer:
            for axis in dict.fromkeys([*(AXES if run.stage == "train" else ()), *run.axes.values()]):
                writer.define_metric(axis)
            for metric, axis in run.axes.items():
                writer.define_metric(metric, step_metric=axis)
            for row in run.rows:
                writer.log({key: value for key, value in row.items() if value is not None})
            if run.table is not None:
                writer.log({"recipes_table": wandb.Table(dataframe=run.table)})
            writer.summary.update(run.summary)


def owner_of(study: Study) -> str:
    """What the ids of a study's runs end with; empty for one that was mirrored before ids had such an end.

    It is made up when it is first asked for, and anew where the file is damaged.
    """
    path = study.path / OWNER
    refuse_links(study.path, inside=study.path.parent)
    word = "" if any((study.path / FOLDER).glob("*run-*")) else uuid.uuid4().hex[:8]
    create_exclusively(path, json.dumps({"owner": word}))
    owner = _kept_owner(path)
    if owner is None:
        log.warning("%s is damaged: runs of this study get new ids in Weights & Biases", path)
        owner = uuid.uuid4().hex[:8]
        write_json(path, {"owner": owner})
    return owner


def _kept_owner(path: Path) -> str | None:
    """What a file says; None where it is damaged."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    owner = content.get("owner") if isinstance(content, dict) else None
    return owner if isinstance(owner, str) and _OWNER_WORD.fullmatch(owner) else None


def _run_of(path: Path) -> str | None:
    """The id of the run that a folder of the client holds, without the study's word; None for others."""
    match = _RUN_FOLDER.fullmatch(path.name)
    return match[1] if match else None


def _quiet_settings() -> wandb.Settings:
    """Settings that print nothing and record nothing but what is logged: a run takes hundredths of a second."""
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
