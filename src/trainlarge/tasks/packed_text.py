"""What tasks on plain text have in common: rows cut from one flat file of tokens, without padding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainlarge.config.data import DataConfig
from trainlarge.config.task import TaskConfig
from trainlarge.data.blocks import Blocks, check_fraction, packed, spread_indices
from trainlarge.data.documents import documents_at, frequency_loss, token_counts
from trainlarge.data.mixed_blocks import MixedBlocks, rows_by_weight, source_seed
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.prepare import PreparedData, prepare
from trainlarge.models.forward import Forward
from trainlarge.tasks.evaluation import EvaluationSet

IGNORED = -100
"""Label of a position that is not to be predicted, as Hugging Face models read it."""
CALIBRATION_SEED = 2306_11695
"""Seed of the choice of calibration rows, the same for all cells."""
CALIBRATION_ROWS = 16
"""Rows of a calibration batch."""

C = TypeVar("C", bound=TaskConfig)


@dataclass(frozen=True)
class PackedText(ABC, Generic[C]):
    """A task on packed rows. Documents follow each other with a separator between them, and a row sees all of it."""

    config: C
    """The group ``task``."""
    data: DataConfig
    """The group ``data``."""
    forward: Forward
    """The forward pass, whose output layer sees the tokens of predictions and no others."""

    @property
    def length(self) -> int:
        """Tokens per row."""
        return self.data.sequence_length

    def prepare(self, root: Path, tokenizer: ModelTokenizer | None = None) -> PreparedData:
        """Tokenizer and token files of the text."""
        return prepare(self.data, root, tokenizer)

    def training_rows(self, prepared: PreparedData, batch_rows: int) -> int:
        """Training blocks in use."""
        whole = sum(tokens // self.length for tokens in prepared.sources.values() or [len(prepared.train)])
        check_fraction(whole, self.data.fraction, batch_rows)
        return len(self.blocks(prepared, seed=0))

    def selection_set(self, prepared: PreparedData) -> EvaluationSet | None:  # noqa: ARG002
        """None: no text is held out but that of validation."""
        return None

    def baseline(self, prepared: PreparedData, data: EvaluationSet) -> dict[str, float]:
        """Loss of predicting by token frequencies alone, and how often the most frequent token is right."""
        counts, labels = token_counts(prepared), data.labels.numpy()
        return {"loss": frequency_loss(counts, labels), "accuracy": float((labels == counts.argmax()).mean())}

    @abstractmethod
    def batch(self, prepared: PreparedData, seed: int, step: int, rows: int) -> dict[str, Tensor]:
        """The batch of a step, a pure function of (seed, step, rows)."""

    def largest_batch(self, prepared: PreparedData, rows: int) -> dict[str, Tensor]:
        """Any: all are of one size."""
        return self.batch(prepared, 0, 0, rows)

    def row_lengths(self, _prepared: PreparedData, _seed: int, rows: int, start: int, stop: int) -> NDArray[np.int64]:
        """All of the same length: there is no padding."""
        return np.full((stop - start, rows), self.length)

    def weight(self, batch: dict[str, Tensor]) -> Tensor:
        """Number of predictions: one per label."""
        labels = batch["labels"]
        return torch.full((), labels.numel(), dtype=torch.float64, device=labels.device)

    def blocks(self, prepared: PreparedData, seed: int) -> Blocks | MixedBlocks:
        """The training blocks in the order of a seed, those of several sources by their weights."""
        if not self.data.sources:
            return Blocks(prepared.train, self.length, seed, self.data.fraction)
        parts, start = dict[str, Blocks](), 0
        for place, (name, tokens) in enumerate(prepared.sources.items()):
            part = prepared.train[start : start + tokens]
            parts[name] = Blocks(part, self.length, source_seed(seed, place), self.data.fraction)
            start += tokens
        weights = {name: source.weight for name, source in self.data.sources.items()}
        rows = rows_by_weight({name: len(part) for name, part in parts.items()}, weights)
        return MixedBlocks(tuple(parts.values()), tuple(rows.values()), seed)

    def documents(self, prepared: PreparedData, predicted: NDArray[np.int64]) -> Tensor:
        """Document of each token ``predicted`` [rows, m] of the evaluation rows, [rows, m] int64.

        A document may be longer than a row, and a row may hold parts of several documents.
        """
        blocks = len(packed(prepared.validation, self.length))
        starts = spread_indices(blocks, self.config.evaluation_rows)[:, None] * self.length
        return torch.from_numpy(documents_at(prepared.validation, prepared.sep_id, starts + predicted))
