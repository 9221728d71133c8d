"""Classification: one label per row of text, a sentence or a pair of them (Devlin et al. 2019, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trainlarge.config.data import DataConfig, Split
from trainlarge.config.task import ClassificationConfig
from trainlarge.data.blocks import RowOrder, check_fraction, spread_indices
from trainlarge.data.documents import frequency_loss
from trainlarge.data.labelled import LABEL, Columns, LabelledData, check_labels, prepare_labelled
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.errors import UserError
from trainlarge.models.forward import Forward
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, evaluate_predictions, tensor_fingerprint
from trainlarge.tasks.packed_text import CALIBRATION_ROWS, CALIBRATION_SEED


@dataclass(frozen=True)
class Classification:
    """A batch has ``input_ids`` and ``attention_mask`` [rows, sequence], and ``labels`` [rows, 1]."""

    config: ClassificationConfig
    """The group ``task``."""
    data: DataConfig
    """The group ``data``."""
    forward: Forward
    """The forward pass."""

    def prepare(self, root: Path, tokenizer: ModelTokenizer | None = None) -> LabelledData:
        """Tokenizer, tokens and labels of the table.

        Raises:
            UserError: on ``task.labels``, when it is not the number of labels that there are.
        """
        columns = Columns(*self.config.label_columns)
        prepared = prepare_labelled(self.data, columns, root, tokenizer)
        check_labels(prepared.labels, self.config.labels, columns.label)
        return prepared

    def training_rows(self, prepared: LabelledData, batch_rows: int) -> int:
        """Training rows in use."""
        check_fraction(len(prepared.train_rows), self.data.fraction, batch_rows)
        return len(self._order(prepared, seed=0))

    def batch(self, prepared: LabelledData, seed: int, step: int, rows: int) -> dict[str, Tensor]:
        """Rows of the epoch's order."""
        return self._rows(prepared, "train", self._order(prepared, seed).rows_of(step, rows))

    def loss(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the cross entropies in nats, and the number of rows."""
        labels = batch["labels"].flatten()
        return cross_entropy(self._logits(model, batch).float(), labels, reduction="sum").double(), self.weight(batch)

    def weight(self, batch: dict[str, Tensor]) -> Tensor:
        """Number of rows."""
        labels = batch["labels"]
        return torch.full((), len(labels), dtype=torch.float64, device=labels.device)

    def evaluation_set(self, prepared: LabelledData) -> EvaluationSet:
        """At most ``evaluation_rows`` validation rows at even distances."""
        indices = spread_indices(len(prepared.validation_rows), self.config.evaluation_rows)
        return _as_set(self._rows(prepared, "validation", indices))

    def training_sample(self, prepared: LabelledData, seed: int) -> EvaluationSet:
        """At most ``evaluation_rows`` of the training rows in use, spread evenly."""
        indices = self._order(prepared, seed).spread_rows(self.config.evaluation_rows)
        return _as_set(self._rows(prepared, "train", indices))

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Cross entropy and accuracy of the labels.

        Raises:
            UserError: on ``task.labels``, when the model has another number of labels.
        """
        if model.config.num_labels != self.config.labels:
            allowed = f"{model.config.num_labels}, the labels of the model"
            raise UserError("task.labels", self.config.labels, allowed)
        return evaluate_predictions(model, data, self._logits)

    def calibration(self, prepared: LabelledData) -> Iterator[dict[str, Tensor]]:
        """Training rows with their labels."""
        order = self._order(prepared, CALIBRATION_SEED)
        for step in range(len(order) // CALIBRATION_ROWS or 1):
            yield self._rows(prepared, "train", order.rows_of(step, min(CALIBRATION_ROWS, len(order))))

    def baseline_loss(self, prepared: LabelledData, data: EvaluationSet) -> float:
        """Loss of predicting by the frequencies of the labels alone."""
        counts = np.bincount(prepared.train_rows[:, LABEL], minlength=self.config.labels)
        return frequency_loss(counts, data.labels.numpy())

    def _logits(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        return self.forward.row_logits(model, batch["input_ids"], batch["attention_mask"])

    def _order(self, prepared: LabelledData, seed: int) -> RowOrder:
        return RowOrder(len(prepared.train_rows), seed, self.data.fraction)

    def _rows(self, prepared: LabelledData, split: Split, indices: NDArray[np.int64]) -> dict[str, Tensor]:
        rows = prepared.rows(split, indices, self.data.sequence_length)
        return {name: torch.from_numpy(values) for name, values in rows.items()}


def _as_set(batch: dict[str, Tensor]) -> EvaluationSet:
    return EvaluationSet(batch, tensor_fingerprint(*batch.values()), predicts_tokens=False)
