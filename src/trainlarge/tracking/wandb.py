"""Weights & Biases as a mirror: offline runs below the study folder, or uploads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainlarge.config.tracking import WandbConfig
from trainlarge.errors import UserError
from trainlarge.machine.environment import send_no_crash_reports
from trainlarge.sweep.files import make_folder
from trainlarge.sweep.store import Study
from trainlarge.tracking.tracker import TrackedRun

if TYPE_CHECKING:
    import wandb

AXES = ("step", "tokens", "flops", "train_seconds", "model_seconds")
"""Columns of a train run that its charts may have as x-axis."""


class WandbTracker:
    """Writes each run with W&B's own client."""

    label: ClassVar[str] = "Weights & Biases"

    def __init__(self, config: WandbConfig) -> None:
        self._config = config

    def write(self, study: Study, run: TrackedRun) -> None:
        """Write one run.

        Raises:
            UserError: where the folder ``wandb`` is a link, or Weights & Biases refuses (no login, no network).
        """
        # An offline mirror must not send crash reports either.
        send_no_crash_reports()
        import wandb.errors

        try:
            self._write(study, run)
        except wandb.errors.Error as error:
            says = f"accepted by Weights & Biases, which says: {error}"
            raise UserError("tracking.mode", self._config.mode, says) from error

    def _write(self, study: Study, run: TrackedRun) -> None:
        import wandb

        make_folder(study.path / "wandb", inside=study.path)
        with wandb.init(
            id=run.id,
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
            for axis in AXES if run.stage == "train" else ("file_bytes",):
                writer.define_metric(axis)
            for metric, axis in run.axes.items():
                writer.define_metric(metric, step_metric=axis)
            for row in run.rows:
                writer.log({key: value for key, value in row.items() if value is not None})
            if run.table is not None:
                writer.log({"recipes_table": wandb.Table(dataframe=run.table)})
            writer.summary.update(run.summary)


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
