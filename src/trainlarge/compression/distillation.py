"""Distillation: a model is trained towards what a teacher computes on the same batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from trainlarge.compression.layout.encoder import Encoder
from trainlarge.compression.training import TeacherNote
from trainlarge.compression.weights import Weights
from trainlarge.config.layer_map import Depths, LayerMap, Pairs, layer_map
from trainlarge.config.recover import Distill
from trainlarge.config.structure import KNOWN_LAYERS
from trainlarge.errors import UserError
from trainlarge.models.capture import AttentionMap, Capture, Watched
from trainlarge.models.families import MODEL_CLASSES
from trainlarge.training.compiling import Loss
from trainlarge.training.modifier import BaseModifier

PROJECTION = "distillation_projection"
"""Name of the matrix that maps hidden states, among the parameters of the student while it trains."""
PROJECTION_SEED = 1503_02531
LossThrough = Callable[[Capture], Loss]
"""What keeps a forward pass -> the loss of the task whose forward pass it keeps."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model that teaches."""

    id: str
    """Its train cell; ``parent`` where it is the checkpoint before compression."""
    model: PreTrainedModel
    """In evaluation mode."""
    encoder: Encoder | None
    """Where its layers are."""


class Distillation(BaseModifier):
    """A modifier that puts the loss of distillation in the place of the task's.

    Each term is a mean over the tokens of a row and then over rows, or over predictions: so micro-batches average
    exactly. The student must be computed by ``student_loss``, whose forward pass is the one that is compared.

    Args:
        method: the terms, their weights and stages.
        weights: those of the student at the start, with where its layers are.
        teacher: the teacher.
        loss_through: the loss of the task, of a forward pass that is kept.
        first_step: steps of the loop before training.
        steps: steps of training.

    Raises:
        UserError: layers, heads or outputs of the two models do not go together.
    """

    def __init__(
        self,
        method: Distill,
        weights: Weights,
        teacher: Teacher,
        loss_through: LossThrough,
        first_step: int,
        steps: int,
    ) -> None:
        self.method, self.teacher, self.first_step, self.steps = method, teacher, first_step, steps
        self.map = _map_of(method, weights, teacher)
        hidden = self.map.hidden if self.map and method.hidden_weight else ()
        attention = self.map.layers if self.map and method.attention_weight else ()
        self.of_student, self.of_teacher = (
            Capture(Watched(encoder.layers, states, layers) if encoder and (states or layers) else None)
            for encoder, states, layers in zip(
                (weights.encoder, teacher.encoder), _sides(hidden), _sides(attention), strict=True
            )
        )
        self._hidden, self._attention = _by_student(hidden), _by_student(attention)
        self.student_loss, self._teacher_loss = loss_through(self.of_student), loss_through(self.of_teacher)
        self._done = 0
        self._projection: nn.Parameter | None = None

    @property
    def note(self) -> TeacherNote:
        """What the record says of it."""
        return TeacherNote(self.teacher.id, self.map.describe() if self.map else None)

    def start(self, model: nn.Module) -> None:
        self.teacher.model.to(next(model.parameters()).device)  # type: ignore[arg-type]
        models = [cast(PreTrainedModel, model), self.teacher.model]
        widths = [int(one.config.hidden_size) for one in models] if self._hidden else []
        if len(set(widths)) > 1:
            # A parameter of the model, so that optimizer and saved states know it as any other.
            self._projection = nn.Parameter(_projection(*widths).to(next(model.parameters()).device))
            model.register_parameter(PROJECTION, self._projection)

    def loss(self, loss: Tensor, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            self._teacher_loss(self.teacher.model, dict(batch))
        weights = self.method.weights_of(self.method.stage(self._done, self.steps))
        mask = batch.get("attention_mask")
        terms: dict[str, Callable[[], Tensor]] = {
            "task": lambda: loss,
            "logits": self._logits_term,
            "hidden": lambda: self._hidden_term(mask),
            "attention": lambda: self._attention_term(mask),
        }
        total = torch.stack([weight * terms[term]().to(loss.dtype) for term, weight in weights.items()]).sum()
        self.of_student.clear()
        self.of_teacher.clear()
        return total

    def after_step(self, step: int, model: nn.Module) -> None:
        self._done = step - self.first_step

    def finish(self, model: nn.Module) -> None:
        if self._projection is not None:
            delattr(model, PROJECTION)

    def state(self) -> dict[str, Tensor]:
        return {"done": torch.tensor(self._done)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._done = int(state["done"])

    def _logits_term(self) -> Tensor:
        student, teacher = self.of_student.logits, self.of_teacher.logits
        if student is None or teacher is None:
            raise UserError(
                "recover.name", self.method.name, "retrain: the task computes with a forward pass of its own"
            )
        if student.shape != teacher.shape:
            allowed = f"a teacher of {student.shape[-1]} outputs, as many as the student has, not {teacher.shape[-1]}"
            raise UserError("recover.teacher", self.teacher.id, allowed)
        return logits_error(student, teacher, self.method.temperature)

    def _hidden_term(self, mask: Tensor | None) -> Tensor:
        errors = []
        for student, teachers in self._hidden.items():
            state = self.of_student.hidden[student]
            if self._projection is not None:
                state = functional.linear(state, self._projection.to(state.dtype))
            others = [hidden_error(state, self.of_teacher.hidden[teacher], mask) for teacher in teachers]
            errors.append(torch.stack(others).mean())
        return torch.stack(errors).sum()

    def _attention_term(self, mask: Tensor | None) -> Tensor:
        error_of = ATTENTION_ERRORS[self.method.attention]
        errors = []
        for student, teachers in self._attention.items():
            own = self.of_student.attention[student]
            others = [error_of(own, self.of_teacher.attention[teacher], mask) for teacher in teachers]
            errors.append(torch.stack(others).mean())
        return torch.stack(errors).sum()


def logits_error(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p_teacher || p_student) of softmax(z / T), mean over predictions (Hinton et al. 2015, section 2).

    The factor keeps the size of gradients as T grows. A single output has no softmax: its squared error is taken.

    Args:
        student: [predictions, classes].
        teacher: as ``student``.
    """
    student, teacher = student.float(), teacher.float()
    if student.shape[-1] == 1:
        return functional.mse_loss(student, teacher)
    return temperature**2 * divergence(student / temperature, teacher / temperature).mean()


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over the last dimension, with no gradient for the teacher."""
    return cast(Tensor, _Divergence.apply(student, teacher))  # type: ignore[no-untyped-call]


class _Divergence(torch.autograd.Function):
    """The gradient p_student - p_teacher is exactly 0 for equal logits.

    Autograd's has the rounding of the sum of probabilities in it, which Adam would turn into steps of full size.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        own, taught = student.log_softmax(-1), teacher.log_softmax(-1)
        wanted = taught.exp()
        ctx.save_for_backward(own.exp() - wanted)
        return (wanted * (taught - own)).sum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return gradient.unsqueeze(-1) * difference, None


def hidden_error(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared error of hidden states, over channels, the tokens of a row that are no padding, and rows.

    Args:
        student: [rows, sequence, width].
        teacher: as ``student``.
        mask: 1 at tokens, 0 at padding, [rows, sequence]; None: no padding.
    """
    return _mean_of_rows((student.float() - teacher.float()).square().mean(-1), mask)


def scores_error(student: AttentionMap, teacher: AttentionMap, mask: Tensor | None) -> Tensor:
    """Mean squared error of the scores that queries give to the keys they may see, over heads, tokens and rows.

    Source: TinyBERT (arXiv 1909.10351), equation 7.
    """
    seen = student.is_seen()
    squares = (student.scores.float() - teacher.scores.float()).square() * seen
    counts = seen.expand(len(squares), 1, *squares.shape[2:]).sum(-1)
    return _mean_of_rows((squares.sum(-1) / counts).mean(1), mask)


def probabilities_error(student: AttentionMap, teacher: AttentionMap, mask: Tensor | None) -> Tensor:
    """KL of the student's attention weights from the teacher's, mean over heads, tokens and rows.

    Source: MiniLM (arXiv 2002.10957), equation 6.
    """
    return _mean_of_rows(divergence(student.with_mask(), teacher.with_mask()).mean(1), mask)


ATTENTION_ERRORS: Mapping[str, Callable[[AttentionMap, AttentionMap, Tensor | None], Tensor]] = {
    "scores": scores_error,
    "probabilities": probabilities_error,
}
"""``recover.attention`` -> the error of a map."""


def _mean_of_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over rows of the mean over the tokens of each, of [rows, sequence]."""
    if mask is None:
        return values.mean()
    counted = mask.to(values.dtype)
    means = (values * counted).sum(-1) / counted.sum(-1).clamp(min=1)
    return cast(Tensor, means.mean())


def _projection(student: int, teacher: int) -> Tensor:
    """The matrix [teacher, student] at the start: normal with deviation 1 / sqrt(student width), always the same."""
    generator = torch.Generator().manual_seed(PROJECTION_SEED)
    return torch.randn((teacher, student), generator=generator) / math.sqrt(student)


def _map_of(method: Distill, weights: Weights, teacher: Teacher) -> LayerMap | None:
    """Which layers are compared; None where only logits are."""
    if not (method.hidden_weight or method.attention_weight):
        return None
    architectures = weights.architecture, type(teacher.model).__name__
    students, teachers = (
        _known(encoder, architecture)
        for encoder, architecture in zip((weights.encoder, teacher.encoder), architectures, strict=True)
    )
    kept = weights.structure.layers or tuple(range(students.depth))
    found = layer_map(method.layer_map, Depths(students.depth, teachers.depth, kept))
    if method.attention_weight:
        for architecture in architectures:
            if architecture not in MODEL_CLASSES:
                allowed = f"0 with {architecture}: it is not known what else its attention does"
                raise UserError("recover.attention_weight", method.attention_weight, allowed)
        for student, other in found.layers:
            method.check_heads(students.heads[student].units, teachers.heads[other].units)
    return found


def _known(encoder: Encoder | None, architecture: str) -> Encoder:
    if encoder is None:
        raise UserError("recover.hidden_weight", architecture, f"0, as attention_weight, or {KNOWN_LAYERS}")
    return encoder


def _sides(pairs: Pairs) -> tuple[frozenset[int], frozenset[int]]:
    """What is compared of the student and of the teacher."""
    return frozenset(one for one, _ in pairs), frozenset(other for _, other in pairs)


def _by_student(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Student -> its teachers."""
    found: dict[int, list[int]] = {}
    for student, teacher in pairs:
        found.setdefault(student, []).append(teacher)
    return found
