"""Compress cells before they run: what a configuration means in full, and which cells share work. No heavy imports."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from trainlarge.compression.checkpoint import Checkpoint, find_checkpoint
from trainlarge.compression.teachers import (
    PASSES,
    check_is_there,
    check_teaching,
    sizes_of_teacher,
    teacher_of,
    with_teacher,
)
from trainlarge.config.budget import EPOCHS
from trainlarge.config.canonical import canonical_json
from trainlarge.config.data import DataConfig
from trainlarge.config.group import Group, Plain
from trainlarge.config.method import Method
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.plain import to_plain
from trainlarge.config.recover import Recovery
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.task import DEFAULT_TASK
from trainlarge.data.fingerprint import resolved_data
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.launch.stage_runner import StageRunner
from trainlarge.machine.resources import Resources
from trainlarge.models.flops import forward_flops
from trainlarge.models.folder_shape import segments_in
from trainlarge.models.model_folder import WEIGHTS, check_positions, weight_count
from trainlarge.models.shape import head_of, shape_of
from trainlarge.models.sizes import sizes_of, sizes_of_folder
from trainlarge.sweep.causes import Causes
from trainlarge.sweep.cell import ID_LENGTH, Cell
from trainlarge.sweep.checkpoints import check_weights
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.records import TrainRecord
from trainlarge.sweep.store import Study
from trainlarge.tasks.data_check import look_at
from trainlarge.tasks.step import step_of

SHARED = ("checkpoint", "checkpoint_digest", "data", "task")
"""The checkpoint and, for a folder, its content and the text that it is evaluated on."""


class CompressStage:
    """The stage ``compress``."""

    def resolve(self, config: CompressConfig, planned: Planned = NOTHING_PLANNED) -> CompressConfig:
        """The full configuration of a compress cell, with the checkpoint found.

        For a folder it also holds the digest of its files and the text that it is evaluated on. Cells of a train cell's
        checkpoint are evaluated on that cell's text.

        Raises:
            UserError: for a checkpoint that is no finished train cell of the study and no whole folder.
        """
        checkpoint = find_checkpoint(config, planned=planned)
        _check_recovery(config, checkpoint, planned)
        if checkpoint.is_cell:
            _refuse_text(config)
            config = with_teacher(config, checkpoint, planned)
            return replace(config, checkpoint=checkpoint.id, checkpoint_digest=None, data=None, task=None)
        checkpoint.task.check_data(checkpoint.data)
        check_positions(checkpoint.folder, checkpoint.data.sequence_length)
        data, task = resolved_data(checkpoint.data), checkpoint.task
        if task.label_columns is not None:
            task = task.with_segments(segments_in(checkpoint.folder))
        folder = str(checkpoint.folder)
        return replace(config, checkpoint=folder, checkpoint_digest=checkpoint.id, data=data, task=task)

    def shared_work(self, config: CompressConfig) -> Plain:
        """What recipes share in one job: the loaded model, the evaluation set, the calibration, the pruned weights."""
        written = to_plain(config)
        return {key: written.get(key) for key in SHARED}

    def cost(self, config: CompressConfig, planned: Planned = NOTHING_PLANNED) -> float:
        """FLOPs of one evaluation of the checkpoint and of recovery; for a folder roughly, from its weights."""
        checkpoint = find_checkpoint(config, planned=planned)
        length, rows = checkpoint.data.sequence_length, checkpoint.task.evaluation_rows
        if checkpoint.trained is None:
            return float(rows * length * 2 * weight_count(checkpoint.folder))
        trained = checkpoint.trained
        evaluation = float(rows * forward_flops(shape_of(trained), length, 1, head_of(trained)))
        trainings = len(recoveries_of(config)) * (recovery_steps(config, planned) or 0)
        return evaluation + (trainings * recovery_step_flops(config, planned) if trainings else 0)

    def look(self, study: Study, cells: Sequence[Cell], causes: Causes, planned: Planned) -> None:
        """Whether the weights are there, the recipes fit them, and the text for a folder can be read."""
        by_checkpoint: dict[str, list[Cell]] = {}
        for cell in cells:
            by_checkpoint.setdefault(cell.as_compress.checkpoint, []).append(cell)
        for same in by_checkpoint.values():
            with causes.of(len(same)):
                checkpoint = find_checkpoint(same[0].as_compress, study, planned)
                sizes = _checkpoint_sizes(checkpoint, study, planned)
                for cell in same:
                    with causes.of():
                        cell.as_compress.recipe.check_fit(sizes)
                        _check_teacher(cell.as_compress, checkpoint, sizes, study, planned)

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


def recovery_id(checkpoint_id: str, done: Sequence[Method], compress_head: bool, ahead: Sequence[Method] = ()) -> str:
    """Names the training at the end of some steps of a recipe, and the folder of its states.

    First 12 hex digits of SHA-256 over what the result depends on: recipes that begin with the same steps share it,
    where the same later steps (``ahead``) take part in the training.
    """
    written: dict[str, Plain] = {"checkpoint": checkpoint_id, "steps": _written(done)}
    # Added later: recipes that compress the head, and whose training is aware of no later step, have the names from
    # before.
    if not compress_head:
        written["compress_head"] = False
    if ahead:
        written["ahead"] = _written(ahead)
    return hashlib.sha256(canonical_json(written).encode()).hexdigest()[:ID_LENGTH]


def _written(steps: Sequence[Method]) -> list[Plain]:
    return [{"slot": part.slot, **part.to_json()} for part in steps]


def recoveries_of(config: CompressConfig) -> tuple[str, ...]:
    """The ids of the trainings in the recipe of a frozen configuration, in their order."""
    steps, compress_head = config.recipe.steps, config.recipe.compress_head
    return tuple(
        recovery_id(config.checkpoint, steps[:end], compress_head, part.ahead(steps[end:]))
        for end, part in enumerate(steps, start=1)
        if isinstance(part, Recovery)
    )


def recovery_steps(config: CompressConfig, planned: Planned = NOTHING_PLANNED) -> int | None:
    """Optimizer steps of each training in a recipe, or the most of them.

    0 where nothing trains, None where the steps of a planned parent, or of a pass over its data, are not known.
    """
    recover = config.recipe.recover
    if not isinstance(recover, Recovery):
        return 0
    if not recover.needs_parent:
        return recover.steps(parent_steps=0, epoch_steps=0)
    if config.checkpoint not in planned:
        parent = _parent_record(config)
        return recover.steps(parent.step, parent.step / parent.data.epochs)
    steps = planned[config.checkpoint].steps
    return None if steps is None or recover.length.endswith(EPOCHS) else recover.steps(steps, epoch_steps=0)


def recovery_step_flops(config: CompressConfig, planned: Planned = NOTHING_PLANNED) -> int:
    """FLOPs of a step of recovery on a train cell's checkpoint, with the forward pass of its teacher."""
    checkpoint = find_checkpoint(config, planned=planned)
    teacher = teacher_of(config, checkpoint, Study.named(config.study), planned)
    own = step_of(checkpoint.as_train).flops
    return own if teacher is None else own + teacher.step_of(checkpoint.as_train).flops // PASSES


def _check_teacher(
    config: CompressConfig, checkpoint: Checkpoint, sizes: ModelSizes, study: Study, planned: Planned
) -> None:
    """Refuse a teacher that is not there, or does not go with what the recipe leaves of a checkpoint of these sizes."""
    teacher = teacher_of(config, checkpoint, study, planned)
    if teacher is not None:
        check_is_there(teacher, study, planned)
        check_teaching(config.recipe, sizes, sizes_of_teacher(teacher))


def _parent_record(config: CompressConfig) -> TrainRecord:
    return Study.named(config.study).folder("train", config.checkpoint).train_record()


def _checkpoint_sizes(checkpoint: Checkpoint, study: Study, planned: Planned) -> ModelSizes:
    """The sizes of a checkpoint, once what it needs is there.

    Raises:
        UserError: its weights are gone, it diverged, or the text that it is evaluated on cannot be read.
    """
    if checkpoint.trained is None:
        look_at(checkpoint.data, checkpoint.task)
        return sizes_of_folder(checkpoint.folder)
    if checkpoint.id not in planned:
        check_weights(study.folder("train", checkpoint.id), checkpoint.folder / WEIGHTS)
    return sizes_of(shape_of(checkpoint.trained))


def _check_recovery(config: CompressConfig, checkpoint: Checkpoint, planned: Planned) -> None:
    """Refuse recovery where there is nothing to train on, or nothing to recover."""
    recover = config.recipe.recover
    if recover is None:
        return
    if not checkpoint.is_cell:
        allowed = f"none for a Hugging Face folder ({checkpoint.folder}): only a train cell has data to train on"
        raise UserError("recover", recover.name, allowed)
    if checkpoint.id not in planned and _parent_record(config).diverged:
        raise UserError("recover", recover.name, f"none: train cell {checkpoint.id} diverged")
    if isinstance(recover, Recovery) and recover.rewinds:
        steps = planned[checkpoint.id].steps if checkpoint.id in planned else _parent_record(config).step
        _check_rewind(recover, checkpoint, steps)


def _check_rewind(recover: Recovery, checkpoint: Checkpoint, steps: int | None) -> None:
    """Refuse to go back where the parent's rates or weights are no function of the step, or past its end."""
    trained, key = cast(TrainConfig, checkpoint.trained), "recover.rewind"
    if trained.clock == "real":
        allowed = f"none: the rates of train cell {checkpoint.id} followed the time (clock=real) and not the steps"
        raise UserError(key, recover.rewind, allowed)
    if steps is not None and recover.first_step >= steps:
        raise UserError(key, recover.rewind, f"below the {steps} steps of train cell {checkpoint.id}")
    if recover.control == "reinitialized" and trained.checkpoint:
        allowed = f"none or random_mask: train cell {checkpoint.id} started from a checkpoint, which no seed drew"
        raise UserError("recover.control", recover.control, allowed)


def _refuse_text(config: CompressConfig) -> None:
    given: tuple[Group | None, ...] = (config.data, config.task)
    for group, default in zip(given, (DataConfig(), DEFAULT_TASK()), strict=True):
        for key in default.plain if group and group != default else ():
            value = getattr(group, key)
            if value != getattr(default, key):
                allowed = "must not be set: the train cell's own data is used"
                raise UserError(f"{default.key}.{key}", value, allowed)
