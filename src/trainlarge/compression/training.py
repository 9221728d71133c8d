"""What a method that trains asks for, and what it gets: the interface between a recipe and the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from trainlarge.compression.input_ranges import Range
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Method
from trainlarge.config.recover import Distill
from trainlarge.sweep.records import RecoveryRow
from trainlarge.training.modifier import Modifier


@dataclass(frozen=True)
class ParentRun:
    """The training that made the checkpoint."""

    steps: int
    """Optimizer steps."""
    peak_lr: float
    """Peak learning rate."""
    epoch_steps: float
    """Steps of a pass over the training data."""
    rate: Callable[[int], float]
    """Learning rate of each of its steps, which count from 0, as a share of the peak."""


@dataclass(frozen=True)
class Target:
    """Until when a method trains."""

    dense_share: float
    """Share of the checkpoint's own score that is to be reached: see ``trainlarge.compression.until.goal_of``."""
    checks: int
    """How often the score is looked at, evenly over the longest training."""


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """How a method trains."""

    steps: int
    """Optimizer steps; with a target the most of them."""
    peak_lr: float
    """Peak learning rate."""
    rate: Callable[[int], float]
    """Learning rate of a step, which counts from 0, as a share of the peak."""
    modifiers: Sequence[Modifier]
    """What is done to the model while it trains; new ones for each run."""
    target: Target | None = None
    """The score that ends it; None: it takes all its steps."""
    distill: Distill | None = None
    """Towards which teacher it trains; None: without one."""
    first_step: int | None = None
    """Step of the parent whose batch is the first one; None: the order of the data continues."""

    def begins_at(self, parent: ParentRun | None, before: TrainingCost) -> int:
        """Number of the first step, which says what its batch is.

        Args:
            before: what earlier trainings of the recipe took.
        """
        if self.first_step is not None:
            return self.first_step
        return before.steps + (0 if parent is None else parent.steps)


@dataclass(frozen=True)
class TargetResult:
    """What became of a target. Scores are those of the task's main metric, on the rows that the target is about."""

    goal: float
    """The score that was to be reached."""
    score: float | None
    """The score of the weights that were kept, the best that were seen; None where all were no numbers."""
    is_reached: bool
    """Whether it was reached."""


@dataclass(frozen=True)
class TeacherNote:
    """Who taught, and what."""

    id: str
    """Its train cell, or ``parent``."""
    layer_map: str | None
    """Pairs of student and teacher layers, such as ``0-1 1-3``; None where layers were not compared."""
    flops: int = 0
    """FLOPs of its forward passes, those of its shape."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What a training has fixed for the quantization that comes after it."""

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    """Name of a matrix -> float32 [rows, groups]: its learned scales."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Name of a linear layer -> the fixed range of its inputs."""

    def __or__(self, other: Learned) -> Learned:
        return Learned({**self.scales, **other.scales}, {**self.ranges, **other.ranges})


@runtime_checkable
class Learns(Protocol):
    """A modifier that fixes something for the quantization that comes after the training."""

    def learned(self) -> Learned:
        """What it has fixed, once training is over."""


@dataclass(frozen=True)
class TrainingCost:
    """What the training inside a recipe took, and its curve; recipes that share it each count all of it."""

    steps: int
    """Optimizer steps."""
    flops: int
    """Floating-point operations of forward and backward by the shape of the checkpoint, zeros counted, too, and of the
    teacher's forward passes."""
    seconds: float
    """Time in training, as measured."""
    precision: str | None
    """``fp32`` or ``bf16``; None where nothing was trained."""
    curve: tuple[RecoveryRow, ...] = ()
    """Training loss and learning rate over the steps."""
    target: TargetResult | None = None
    """What became of the target, where there was one: that of the last training."""
    teacher: TeacherNote | None = None
    """Who taught, where anybody did; the FLOPs are those of all trainings."""

    def followed_by(self, later: TrainingCost) -> TrainingCost:
        """The cost of both: ``later`` is a further training of the same recipe."""
        rows = (
            replace(
                row,
                step=self.steps + row.step,
                flops=self.flops + row.flops,
                train_seconds=self.seconds + row.train_seconds,
            )
            for row in later.curve
        )
        return replace(
            later,
            steps=self.steps + later.steps,
            flops=self.flops + later.flops,
            seconds=self.seconds + later.seconds,
            curve=(*self.curve, *rows),
            teacher=later.teacher and replace(later.teacher, flops=later.teacher.flops + self.teacher_flops),
        )

    @property
    def teacher_flops(self) -> int:
        """FLOPs of the teacher."""
        return self.teacher.flops if self.teacher else 0


NO_TRAINING = TrainingCost(steps=0, flops=0, seconds=0.0, precision=None)
"""The cost of a recipe that does not train."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Weights after training."""

    weights: Weights
    """Of the same names and shapes."""
    cost: TrainingCost
    """What it took."""


class Trainer(Protocol):
    """Trains what is left of a checkpoint after some steps of a recipe."""

    @property
    def parent(self) -> ParentRun | None:
        """The training that made the checkpoint; None where nothing is known of it."""

    @property
    def seed(self) -> int:
        """Seed of that training."""

    def early(
        self, steps: int, like: Weights, is_redrawn: bool, done: tuple[Method, ...], ahead: tuple[Method, ...]
    ) -> Weights:
        """The weights that the checkpoint had after so many steps of its training.

        Args:
            steps: 0 for initial weights.
            like: weights of the checkpoint's shapes.
            is_redrawn: whether initial weights are those of another seed.
            done: as of ``train``.
            ahead: as of ``train``.
        """

    def train(
        self,
        plan: TrainingPlan,
        done: tuple[Method, ...],
        ahead: tuple[Method, ...],
        weights: Weights,
        before: TrainingCost,
    ) -> Trained:
        """Train a copy of ``weights``.

        Args:
            plan: how.
            done: steps of the recipe, in their order, up to the one that trains.
            ahead: later steps that take part in the training. With the checkpoint, ``done`` and the plan they say what
                the result is.
            weights: float weights at the start.
            before: what earlier trainings of the recipe took: the order of the data continues after their steps.

        Raises:
            UserError: the weights do not stay finite.
        """
