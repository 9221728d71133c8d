"""The teacher of a distillation before anything runs: which train cell it is, and whether it can teach. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from trainlarge.compression.checkpoint import Checkpoint
from trainlarge.config.layer_map import Depths, layer_map
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.plain import to_plain
from trainlarge.config.recipe import Recipe
from trainlarge.config.recover import PARENT_AS_TEACHER, TEACHER_ALLOWED, Distill
from trainlarge.config.schema import CompressConfig, TrainConfig
from trainlarge.config.structure import KNOWN_LAYERS
from trainlarge.errors import UserError
from trainlarge.models.model_folder import WEIGHTS
from trainlarge.models.shape import shape_of
from trainlarge.models.sizes import sizes_of
from trainlarge.sweep.cell import ID_PATTERN
from trainlarge.sweep.checkpoints import check_weights, train_cell
from trainlarge.sweep.condition import holds
from trainlarge.sweep.planned import NOTHING_PLANNED, Planned
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import Step, step_of

KEY = "recover.teacher"
NAMED = 5
"""Cells that an error names."""
PASSES = 3
"""FLOPs of a training step over those of its forward pass alone, see ``trainlarge.models.flops.training_flops``."""


@dataclass(frozen=True)
class TeacherCell:
    """The train cell that made a teacher."""

    id: str
    """Its id."""
    folder: Path
    """Hugging Face folder of the model."""
    trained: TrainConfig
    """Its configuration."""

    def step_of(self, parent: TrainConfig) -> Step:
        """What a step on the rows of the training ``parent`` takes in with this model."""
        return step_of(self.as_if_trained_by(parent))

    def as_if_trained_by(self, parent: TrainConfig) -> TrainConfig:
        """The configuration of a model of this shape on the data, the task and the batch of another cell."""
        return replace(parent, arch=self.trained.arch, checkpoint_config=self.trained.checkpoint_config)


def with_teacher(config: CompressConfig, parent: Checkpoint, planned: Planned = NOTHING_PLANNED) -> CompressConfig:
    """A configuration with the id of its teacher in the place of a condition, and ``parent`` for the checkpoint itself.

    Args:
        parent: the checkpoint that is compressed.
        planned: train cells that will be finished.

    Raises:
        UserError: there is no such train cell, several meet the condition, or it cannot teach.
    """
    method = config.recipe.recover
    if not isinstance(method, Distill) or method.teacher == PARENT_AS_TEACHER:
        return config
    study = Study.named(config.study)
    is_id = ID_PATTERN.fullmatch(method.teacher)
    found = method.teacher if is_id else _the_one(method.teacher, study, parent, planned)
    teacher = _cell(found, study, planned)
    _check_same(method.teacher, teacher, parent)
    named = replace(method, teacher=PARENT_AS_TEACHER if found == parent.id else found)
    return replace(config, recipe=replace(config.recipe, recover=named))


def teacher_of(
    config: CompressConfig, parent: Checkpoint, study: Study, planned: Planned = NOTHING_PLANNED
) -> TeacherCell | None:
    """The teacher of a resolved configuration; None where nobody teaches.

    Raises:
        UserError: it is no finished train cell of the study.
    """
    method = config.recipe.recover
    if not isinstance(method, Distill) or parent.trained is None:
        return None
    if method.teacher == PARENT_AS_TEACHER:
        return TeacherCell(parent.id, parent.folder, parent.trained)
    return _cell(method.teacher, study, planned)


def check_teaching(recipe: Recipe, student: ModelSizes, teacher: ModelSizes) -> None:
    """Refuse a layer map or heads that do not fit the two models, as far as they are known without weights.

    Args:
        student: sizes of the checkpoint.
        teacher: sizes of the teacher.

    Raises:
        UserError: naming the key.
    """
    for step in recipe.steps:
        if isinstance(step, Distill) and (step.hidden_weight or step.attention_weight):
            _check_layers(step, student, teacher)
        student = step.fitted(student)


def check_is_there(teacher: TeacherCell, study: Study, planned: Planned) -> None:
    """Refuse a teacher that will not be there, or that diverged.

    Raises:
        UserError: naming the key.
    """
    if teacher.id not in planned:
        with _as_teacher(teacher.id):
            check_weights(study.folder("train", teacher.id), teacher.folder / WEIGHTS)


def sizes_of_teacher(teacher: TeacherCell) -> ModelSizes:
    """The sizes of a teacher."""
    return sizes_of(shape_of(teacher.trained))


def _check_layers(step: Distill, student: ModelSizes, teacher: ModelSizes) -> None:
    for model in (student, teacher):
        if not model.has_known_layers:
            allowed = f"0, as attention_weight, or {KNOWN_LAYERS}"
            raise UserError("recover.hidden_weight", model.architecture, allowed)
    if student.layers is not None and teacher.layers is not None:
        # Which layers are kept is not known yet; how many are is what a map depends on.
        layer_map(step.layer_map, Depths(student.layers, teacher.layers, tuple(range(student.layers))))
    heads = [model.units.get("heads") for model in (student, teacher)]
    if heads[0] is not None and heads[1] is not None:
        step.check_heads(heads[0].count, heads[1].count)


def _cell(cell_id: str, study: Study, planned: Planned) -> TeacherCell:
    with _as_teacher(cell_id):
        folder, trained = train_cell(study, cell_id, planned)
    return TeacherCell(cell_id, folder.checkpoint, trained)


def _the_one(condition: str, study: Study, parent: Checkpoint, planned: Planned) -> str:
    """The train cell of the parent's task that meets a condition."""
    ahead = {name: cell.config for name, cell in planned.items() if cell.config.study == study.name}
    done = (folder.id for folder in study.folders("train") if folder.id not in ahead and folder.is_done())
    configs = ahead | {name: train_cell(study, name)[1] for name in done}
    meeting = [
        name
        for name, config in configs.items()
        if config.task.name == parent.task.name and holds(condition, to_plain(config), KEY)
    ]
    if len(meeting) != 1:
        found = f"{len(meeting)} do: {', '.join(sorted(meeting)[:NAMED])}" if meeting else "none does"
        raise UserError(KEY, condition, f"{TEACHER_ALLOWED}; of those of {study.name} with that task, {found}")
    return meeting[0]


def _check_same(given: str, teacher: TeacherCell, parent: Checkpoint) -> None:
    """Refuse a teacher that cannot read, or does not predict, what the student does."""
    own = parent.as_train
    for what, is_same in (
        ("task", _predicted(teacher.trained) == _predicted(own)),
        ("vocabulary", teacher.trained.data.vocab_size == own.data.vocab_size and _read_alike(teacher, parent)),
        ("length of rows, or a longer one", teacher.trained.data.sequence_length >= own.data.sequence_length),
    ):
        if not is_same:
            raise UserError(KEY, given, f"parent, or a train cell with the same {what} as checkpoint {parent.id}")


def _predicted(config: TrainConfig) -> tuple[object, ...]:
    """What a model predicts: the task, and of rows the table that their labels come from."""
    task = config.task
    table = None if task.label_columns is None else (task.label_columns, config.data.fingerprint)
    return task.name, task.row_labels, table, getattr(task, "segments", None)


def _read_alike(teacher: TeacherCell, parent: Checkpoint) -> bool:
    """Whether both have one tokenizer, as far as that is known before they are trained."""
    known = _tokenizer_is_shared(teacher.folder, parent.folder)
    own, other = parent.as_train, teacher.trained
    if known is not None or own.checkpoint or other.checkpoint:
        return known is not False
    return own.data.fingerprint == other.data.fingerprint


@lru_cache(maxsize=4096)
def _tokenizer_of(folder: Path) -> bytes:
    return hashlib.sha256((folder / "tokenizer.json").read_bytes()).digest()


def _tokenizer_is_shared(one: Path, other: Path) -> bool | None:
    """None where a tokenizer is not there yet."""
    try:
        return _tokenizer_of(one) == _tokenizer_of(other)
    except OSError:
        return None


@contextmanager
def _as_teacher(text: str) -> Iterator[None]:
    """Errors of a checkpoint within the block are about the teacher."""
    try:
        yield
    except UserError as error:
        if error.key != "checkpoint":
            raise
        raise UserError(KEY, text, error.allowed) from error
