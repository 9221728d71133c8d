"""The teacher of a distillation in a study: the checkpoint itself, or that of another train cell."""

from __future__ import annotations

import hashlib
import logging
from typing import cast

from transformers import PreTrainedModel

from trainlarge.compression.distillation import Distillation, Teacher
from trainlarge.compression.layout.encoder import find_encoder
from trainlarge.compression.loaded_checkpoint import LoadedCheckpoint
from trainlarge.compression.recovery_run import FlopsOf
from trainlarge.compression.teachers import PASSES, TeacherCell
from trainlarge.compression.training import TrainingPlan
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Method
from trainlarge.config.recover import PARENT_AS_TEACHER, Distill
from trainlarge.launch.job import prove_checkpoint
from trainlarge.models.build import load_model
from trainlarge.models.capture import Capture
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS
from trainlarge.sweep.checkpoints import train_cell
from trainlarge.sweep.store import Study
from trainlarge.tasks.step import Step, UnevenStep, uneven
from trainlarge.tasks.task import make_task
from trainlarge.training.compiling import Loss

log = logging.getLogger(__name__)


class StudyTeacher:
    """Loads teachers, one at a time, and says what they cost.

    Args:
        study: the study of all cells.
        checkpoint: what is compressed, of a train cell.
        step: what a step takes in.
    """

    def __init__(self, study: Study, checkpoint: LoadedCheckpoint, step: Step) -> None:
        self.study, self.checkpoint, self.step = study, checkpoint, step
        self._loaded: Teacher | None = None

    def distillation(self, plan: TrainingPlan, weights: Weights, first_step: int) -> Distillation | None:
        """The modifier of a plan with a teacher; None without one.

        Raises:
            UserError: the teacher has changed, or does not go with the student.
        """
        method = plan.distill
        if method is None:
            return None
        if self._loaded is None or self._loaded.id != method.teacher:
            self._loaded = None
            self._loaded = self._load(method.teacher)
        taught = Distillation(method, weights, self._loaded, self._loss_through, first_step, plan.steps)
        if taught.map:
            log.info("layers of student and teacher: %s", taught.map.describe())
        return taught

    def weights_of_both(self, method: Method) -> str | None:
        """What the weights of a training follow from: a digest of the checkpoint's and of another teacher's."""
        own = self.checkpoint.parent.weights
        if own is None or not isinstance(method, Distill) or method.teacher == PARENT_AS_TEACHER:
            return own
        taught = self.study.folder("train", method.teacher).weights_digest()
        return hashlib.sha256(f"{own} {taught}".encode()).hexdigest()

    def flops_of(self, method: Distill | None) -> FlopsOf:
        """FLOPs of the teacher's forward passes in some steps."""
        if method is None:
            return lambda _start, _stop: 0
        cell, parent = self._cell(method.teacher), self.checkpoint.parent.as_train
        step = cell.step_of(parent)
        if isinstance(self.step, UnevenStep):
            step = uneven(step, cell.as_if_trained_by(parent), self.step.lengths)
        return lambda start, stop: step.flops_of(start, stop) // PASSES

    def _cell(self, name: str) -> TeacherCell:
        parent = self.checkpoint.parent
        if name == PARENT_AS_TEACHER:
            return TeacherCell(parent.id, parent.folder, parent.as_train)
        folder, trained = train_cell(self.study, name)
        return TeacherCell(name, folder.checkpoint, trained)

    def _load(self, name: str) -> Teacher:
        checkpoint = self.checkpoint
        if name == PARENT_AS_TEACHER:
            model = checkpoint.weights.trainable().eval().requires_grad_(False)
            return Teacher(name, cast(PreTrainedModel, model), checkpoint.weights.encoder)
        prove_checkpoint(self.study.folder("train", name))
        task = checkpoint.parent.task
        attention = checkpoint.implementation.attention
        model = load_model(self._cell(name).folder, attention=attention, head=Head(task.head))
        model.requires_grad_(False)
        return Teacher(name, model, find_encoder(model))

    def _loss_through(self, capture: Capture) -> Loss:
        parent, forward = self.checkpoint.parent, FORWARDS[self.checkpoint.implementation.forward]
        return make_task(parent.task, parent.data, capture.over(forward)).loss
