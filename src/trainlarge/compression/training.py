"""What a method that trains asks for, and what it gets: the interface between a recipe and the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from trainlarge.compression.input_ranges import Range
from trainlarge.compression.weights import Weights
from trainlarge.config.method import Method
from trainlarge.sweep.records import RecoveryRow
from trainlarge.training.modifier import Modifier


@dataclass(frozen=True)
class ParentRun:
    """The training that made the checkpoint."""

    steps: int
    """Optimizer steps."""
    peak_lr: float
    """Peak learning rate."""


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """How a method trains."""

    steps: int
    """Optimizer steps."""
    peak_lr: float
    """Peak learning rate."""
    rate: Callable[[int], float]
    """Learning rate of a step, which counts from 0, as a share of the peak."""
    modifiers: Sequence[Modifier]
    """What is done to the model while it trains; new ones for each run."""


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
    """Floating-point operations of forward and backward by the shape of the checkpoint: zeros are counted, too."""
    seconds: float
    """Time in training, as measured."""
    precision: str | None
    """``fp32`` or ``bf16``; None where nothing was trained."""
    curve: tuple[RecoveryRow, ...] = ()
    """Training loss and learning rate over the steps."""


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

    def train(
        self, plan: TrainingPlan, done: tuple[Method, ...], ahead: tuple[Method, ...], weights: Weights
    ) -> Trained:
        """Train a copy of ``weights``.

        Args:
            plan: how.
            done: steps of the recipe, in their order, up to the one that trains.
            ahead: later steps that take part in the training. With the checkpoint, ``done`` and the plan they say what
                the result is.
            weights: float weights at the start.

        Raises:
            UserError: the weights do not stay finite.
        """
