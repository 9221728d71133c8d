"""What tasks on tables of labelled rows have in common: which rows train, choose and validate, and their batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.config.data import DataConfig, Split
from trainlarge.config.task import LabelledConfig
from trainlarge.data.arrays import Integers
from trainlarge.data.blocks import RowOrder, check_fraction, spread_indices
from trainlarge.data.buckets import training_order
from trainlarge.data.label_table import is_selection, training_rows
from trainlarge.data.labelled import SEGMENT, LabelledData, check_labels, prepare_labelled
from trainlarge.data.labelled_tables import Columns
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.models.forward import Forward
from trainlarge.tasks.evaluation import EvaluationSet, tensor_fingerprint, without_empty_columns
from trainlarge.tasks.packed_text import CALIBRATION_ROWS, CALIBRATION_SEED

C = TypeVar("C", bound=LabelledConfig)


@dataclass(frozen=True)
class LabelledRows(Generic[C]):
    """A batch has ``input_ids`` and ``attention_mask`` [rows, sequence], and ``labels`` [rows, 1].

    With ``task.segments=2`` it has ``token_type_ids`` [rows, sequence], too.
    """

    config: C
    """The group ``task``."""
    data: DataConfig
    """The group ``data``."""
    forward: Forward
    """The forward pass."""
    _orders: dict[tuple[Path, int], RowOrder] = field(default_factory=dict, compare=False, repr=False)
    """The order of the training rows by the folder of the data and the seed: one, kept for the steps to come."""

    def prepare(self, root: Path, tokenizer: ModelTokenizer | None = None) -> LabelledData:
        """Tokenizer, tokens and labels of the table.

        Raises:
            UserError: on ``task.labels``, when it is not the number of labels that there are.
        """
        prepared = prepare_labelled(self.data, Columns(*self.config.label_columns), root, tokenizer)
        check_labels(prepared.labels, self.config)
        return prepared

    def training_rows(self, prepared: LabelledData, batch_rows: int) -> int:
        """Training rows in use: without those that are held out to choose by."""
        trained = training_rows(prepared.train_rows, self.config.selection_share)
        check_fraction(len(prepared.train_rows if trained is None else trained), self.data.fraction, batch_rows)
        return len(self._order(prepared, seed=0))

    def batch(self, prepared: LabelledData, seed: int, step: int, rows: int) -> dict[str, Tensor]:
        """Rows of the epoch's order, as long as all rows or, in buckets, as the longest of the batch."""
        batch = self._rows(prepared, "train", self._order(prepared, seed).rows_of(step, rows))
        return batch if self.config.has_even_steps else without_empty_columns(batch)

    def largest_batch(self, prepared: LabelledData, rows: int) -> dict[str, Tensor]:
        """Rows as long as any batch may be."""
        return self._rows(prepared, "train", self._order(prepared, seed=0).rows_of(0, rows))

    def row_lengths(self, prepared: LabelledData, seed: int, rows: int, start: int, stop: int) -> Integers:
        """Tokens of each row of the batches ``start`` to ``stop - 1``, without padding, [steps, rows]."""
        order = self._order(prepared, seed)
        used = [order.rows_of(step, rows) for step in range(start, stop)]
        lengths = prepared.lengths("train", self.data.sequence_length)
        return lengths[np.array(used, np.int64).reshape(stop - start, rows)]

    def weight(self, batch: dict[str, Tensor]) -> Tensor:
        """Number of rows."""
        labels = batch["labels"]
        return torch.full((), len(labels), dtype=torch.float64, device=labels.device)

    def evaluation_set(self, prepared: LabelledData) -> EvaluationSet:
        """At most ``evaluation_rows`` validation rows at even distances."""
        indices = spread_indices(len(prepared.validation_rows), self.config.evaluation_rows)
        return self._set(prepared, "validation", indices)

    def selection_set(self, prepared: LabelledData) -> EvaluationSet | None:
        """At most ``evaluation_rows`` of the training rows that are held out to choose by, at even distances."""
        if not self.config.selection_share:
            return None
        held_out = np.flatnonzero(is_selection(prepared.train_rows, self.config.selection_share))
        indices = held_out[spread_indices(len(held_out), self.config.evaluation_rows)]
        return self._set(prepared, "train", indices)

    def training_sample(self, prepared: LabelledData, seed: int) -> EvaluationSet:
        """At most ``evaluation_rows`` of the training rows in use, spread evenly."""
        indices = self._order(prepared, seed).spread_rows(self.config.evaluation_rows)
        return self._set(prepared, "train", indices)

    def calibration(self, prepared: LabelledData) -> Iterator[dict[str, Tensor]]:
        """Training rows with their labels."""
        order = self._order(prepared, CALIBRATION_SEED)
        for step in range(len(order) // CALIBRATION_ROWS or 1):
            yield self._rows(prepared, "train", order.rows_of(step, min(CALIBRATION_ROWS, len(order))))

    def _logits(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        return self.forward.row_logits(model, batch["input_ids"], batch["attention_mask"], batch.get(SEGMENT))

    def _order(self, prepared: LabelledData, seed: int) -> RowOrder:
        key = prepared.folder, seed
        if key not in self._orders:
            self._orders.clear()
            self._orders[key] = self._new_order(prepared, seed)
        return self._orders[key]

    def _new_order(self, prepared: LabelledData, seed: int) -> RowOrder:
        longest = None if self.config.has_even_steps else self.data.sequence_length
        share = self.config.selection_share
        return training_order(prepared.train_rows, seed, self.data.fraction, share, longest)

    def _rows(self, prepared: LabelledData, split: Split, indices: Integers) -> dict[str, Tensor]:
        rows = prepared.rows(split, indices, self.data.sequence_length, self.config.segments or 1)
        return {name: torch.from_numpy(values) for name, values in rows.items()}

    def _set(self, prepared: LabelledData, split: Split, indices: Integers) -> EvaluationSet:
        batch = self._rows(prepared, split, indices)
        # Segments are how a model reads the rows: models with and without them compare.
        read = (tensor for name, tensor in batch.items() if name != SEGMENT)
        fingerprint, by_length = tensor_fingerprint(*read), not self.config.has_even_steps
        return EvaluationSet(
            batch, fingerprint, predicts_tokens=False, rows=torch.from_numpy(indices), by_length=by_length
        )
