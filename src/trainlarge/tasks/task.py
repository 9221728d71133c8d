"""The interface of a task. To add one: a dataclass in ``config/task.py``, a file here, a file in ``conf/task/``.

A package of a user adds one without them: ``docs/own_task.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol, cast

from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.config.data import DataConfig
from trainlarge.config.task import TaskConfig
from trainlarge.data.arrays import Integers
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.prepare import PreparedData
from trainlarge.models.forward import Forward
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet

Batch = dict[str, Tensor]
"""Tensors by the names that Hugging Face models give them, rows first."""


class Task(Protocol):
    """What a model learns. Everything it gives is a pure function of its arguments and the configuration.

    What must be known before anything is computed (checks, predictions per row, metrics) is in the task's dataclass in
    ``trainlarge.config.task``, which imports nothing heavy.
    """

    def prepare(self, root: Path, tokenizer: ModelTokenizer | None = None) -> PreparedData:
        """The data of the cell, built below ``root`` unless it is there already, read by ``tokenizer`` if one is given.

        Raises:
            UserError: a setting is wrong, a file cannot be read, or the task cannot use that tokenizer.
        """

    def training_rows(self, prepared: PreparedData, batch_rows: int) -> int:
        """Rows of training data that are in use.

        Raises:
            UserError: there are fewer than one batch has.
        """

    def batch(self, prepared: PreparedData, seed: int, step: int, rows: int) -> Batch:
        """The batch of a step on the CPU, a pure function of (seed, step, rows)."""

    def largest_batch(self, prepared: PreparedData, rows: int) -> Batch:
        """A batch of so many rows that takes as much memory as any."""

    def row_lengths(self, prepared: PreparedData, seed: int, rows: int, start: int, stop: int) -> Integers:
        """Tokens of each row of the batches ``start`` to ``stop - 1``, without padding, [steps, rows]."""

    def loss(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of the losses of a batch or a part of one, fp64 [], and its weight: ``weight(batch)``.

        The loss of a whole batch is the sum of the sums over the sum of the weights, so that parts of it, on one device
        or on several, average exactly, also where they have different numbers of predictions.
        """

    def weight(self, batch: Batch) -> Tensor:
        """Number of predictions in a batch, fp64 []."""

    def evaluation_set(self, prepared: PreparedData) -> EvaluationSet:
        """The fixed evaluation set, the same for every cell on the same data."""

    def selection_set(self, prepared: PreparedData) -> EvaluationSet | None:
        """Training rows that are held out to choose cells by, in the form of the evaluation set; None where none are.

        They are the same for every seed and share of the data.
        """

    def training_sample(self, prepared: PreparedData, seed: int) -> EvaluationSet:
        """Training rows in the form of the evaluation set: the model loses less there by what it has memorized."""

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Evaluate in fp32 and without dropout, also under autocast; the model's mode is left as it was."""

    def calibration(self, prepared: PreparedData) -> Iterator[Batch]:
        """Batches of the training split for methods that look at activations or gradients.

        They are arguments of the model's forward pass, with ``labels`` aligned with its logits, -100 where nothing is
        to be predicted.
        """

    def baseline(self, prepared: PreparedData, data: EvaluationSet) -> Mapping[str, float]:
        """Scores of predicting by the frequencies of the training split alone, with no look at the input."""


def make_task(task: TaskConfig, data: DataConfig, forward: Forward) -> Task:
    """The task of the groups ``task`` and ``data``.

    Args:
        task: the group ``task``.
        data: the group ``data``.
        forward: the forward pass to compute with.
    """
    return cast(Task, resolve_name(task.computed_by)(task, data, forward))
