"""Compress cells before they run: what a configuration means in full, and which cells share work. No heavy imports."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from trainlarge.compression.checkpoint import find_checkpoint
from trainlarge.config.canonical import canonical_json
from trainlarge.config.data import DataConfig
from trainlarge.config.group import Group, Plain
from trainlarge.config.method import Method
from trainlarge.config.plain import to_plain
from trainlarge.config.recover import Recovery
from trainlarge.config.schema import CompressConfig
from trainlarge.config.task import DEFAULT_TASK
from trainlarge.data.fingerprint import resolved_data
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.launch.stage_runner import StageRunner
from trainlarge.machine.resources import Resources
from trainlarge.models.flops import forward_flops
from trainlarge.models.model_folder import check_positions, weight_bytes
from trainlarge.models.shape import head_of, shape_of
from trainlarge.sweep.cell import ID_LENGTH, Cell
from trainlarge.sweep.records import TrainRecord
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import step_of

SHARED = ("checkpoint", "checkpoint_digest", "data", "task")
"""The checkpoint and, for a folder, its content and the text that it is evaluated on."""
FLOAT_BYTES = 4


class CompressStage:
    """The stage ``compress``."""

    def resolve(self, config: CompressConfig) -> CompressConfig:
        """The full configuration of a compress cell, with the checkpoint found.

        For a folder it also holds the digest of its files and the text that it is evaluated on. Cells of a train cell's
        checkpoint are evaluated on that cell's text.

        Raises:
            UserError: for a checkpoint that is no finished train cell of the study and no whole folder.
        """
        _check_recovery(config)
        checkpoint = find_checkpoint(config)
        if checkpoint.is_cell:
            _refuse_text(config)
            return replace(config, checkpoint=checkpoint.id, checkpoint_digest=None, data=None, task=None)
        checkpoint.task.check_data(checkpoint.data)
        check_positions(checkpoint.folder, checkpoint.data.sequence_length)
        data = resolved_data(checkpoint.data)
        return replace(config, checkpoint=str(checkpoint.folder), checkpoint_digest=checkpoint.id, data=data)

    def shared_work(self, config: CompressConfig) -> Plain:
        """What recipes share in one job: the loaded model, the evaluation set, the calibration, the pruned weights."""
        written = to_plain(config)
        return {key: written.get(key) for key in SHARED}

    def cost(self, config: CompressConfig) -> float:
        """FLOPs of one evaluation of the checkpoint and of recovery; for a folder roughly, from its weights."""
        checkpoint = find_checkpoint(config)
        length, rows = checkpoint.data.sequence_length, checkpoint.task.evaluation_rows
        if checkpoint.trained is None:
            return float(rows * length * 2 * weight_bytes(checkpoint.folder) / FLOAT_BYTES)
        trained = checkpoint.trained
        evaluation = float(rows * forward_flops(shape_of(trained), length, 1, head_of(trained)))
        return evaluation + recovery_steps(config) * step_of(trained).flops

    def to_prepare(self, cells: list[Cell]) -> list[Cell]:
        """No cell: compress jobs share nothing that is better done before them."""
        return []

    def prepare(self, study: Study, cells: list[Cell], resources: Resources) -> None:
        """Nothing."""

    def run(self, job: RunningJob) -> None:
        """Compress one checkpoint by the recipe of each cell of the job."""
        from trainlarge.compression.stage import run

        run(job)


STAGE: StageRunner[CompressConfig] = CompressStage()


def recovery_id(checkpoint_id: str, done: Sequence[Method]) -> str:
    """Names the training at the end of some steps of a recipe, and the folder of its states.

    First 12 hex digits of SHA-256 over what the result depends on: recipes that begin with the same steps share it.
    """
    steps = [{"slot": part.slot, **part.to_json()} for part in done]
    identity = canonical_json({"checkpoint": checkpoint_id, "steps": steps})
    return hashlib.sha256(identity.encode()).hexdigest()[:ID_LENGTH]


def recovery_of(config: CompressConfig) -> str | None:
    """The id of the training in the recipe of a frozen configuration; None where nothing trains."""
    steps = config.recipe.steps
    trained = [index for index, part in enumerate(steps) if isinstance(part, Recovery)]
    return recovery_id(config.checkpoint, steps[: trained[0] + 1]) if trained else None


def recovery_steps(config: CompressConfig) -> int:
    """Optimizer steps of the training in a recipe; 0 where nothing trains."""
    recover = config.recipe.recover
    return recover.steps(_parent_record(config).step) if isinstance(recover, Recovery) else 0


def _parent_record(config: CompressConfig) -> TrainRecord:
    return Study.named(config.study).folder("train", config.checkpoint).train_record()


def _check_recovery(config: CompressConfig) -> None:
    """Refuse recovery where there is nothing to train on, or nothing to recover."""
    recover = config.recipe.recover
    if recover is None:
        return
    checkpoint = find_checkpoint(config)
    if not checkpoint.is_cell:
        allowed = f"none for a Hugging Face folder ({checkpoint.folder}): only a train cell has data to train on"
        raise UserError("recover", recover.name, allowed)
    if _parent_record(config).diverged:
        raise UserError("recover", recover.name, f"none: train cell {checkpoint.id} diverged")


def _refuse_text(config: CompressConfig) -> None:
    given: tuple[Group | None, ...] = (config.data, config.task)
    for group, default in zip(given, (DataConfig(), DEFAULT_TASK()), strict=True):
        for key in default.plain if group and group != default else ():
            value = getattr(group, key)
            if value != getattr(default, key):
                allowed = "must not be set: the train cell's own data is used"
                raise UserError(f"{default.key}.{key}", value, allowed)
