"""Masked language modelling (Devlin et al. 2019, section 3.1), drawn anew for every batch (Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.blocks import Blocks, check_fraction, packed, spread, spread_indices, step_seed
from trainlarge.data.documents import documents_at, frequency_loss, token_counts
from trainlarge.data.prepare import OwnTokenizer, PreparedData, prepare
from trainlarge.models.forward import Forward
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, evaluate_predictions, tensor_fingerprint

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1
"""The rest, 10 %, stay as they are."""
EVALUATION_SEED = 2002_11794
"""Seed of the evaluation masks: a constant, whatever a cell's seed is."""
CALIBRATION_SEED = 2306_11695
"""Seed of the choice of calibration rows and of their masks: a constant, whatever a cell's seed is."""
CALIBRATION_ROWS = 16
"""Rows of a calibration batch."""
IGNORED = -100
"""Label of a position that is not to be predicted, as Hugging Face models read it."""


@dataclass(frozen=True)
class MaskedLM:
    """Some tokens of packed rows are hidden, and predicted.

    A batch has ``input_ids`` [rows, sequence], the ``positions`` to predict [rows, m], ascending in each row, and the
    ids that stood there, ``labels`` [rows, m]. Every row has as many, so that shapes are static.
    """

    config: MaskedLMConfig
    """The group ``task``."""
    data: dict[str, Any]
    """The group ``data``."""
    forward: Forward
    """The forward pass, whose output layer sees the positions to predict and no others."""

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return int(self.data["sequence_length"])

    def prepare(self, root: Path, own: OwnTokenizer | None = None) -> PreparedData:
        """Tokenizer and token files of the text."""
        return prepare(self.data, root, own)

    def training_rows(self, prepared: PreparedData, batch_rows: int) -> int:
        """Training blocks in use."""
        check_fraction(len(packed(prepared.train, self.length)), self.data["fraction"], batch_rows)
        return len(self._blocks(prepared, seed=0))

    def batch(self, prepared: PreparedData, seed: int, step: int, rows: int) -> dict[str, Tensor]:
        """Rows of the epoch's order, with other masks for every (seed, step), the same for the same."""
        ids = torch.from_numpy(self._blocks(prepared, seed).batch(step, rows))
        # On the CPU whatever computes the step: the generator of a GPU gives other numbers for the same seed.
        generator = torch.Generator().manual_seed(step_seed(seed, step))
        return self._masked(prepared, ids, self.config.predictions(self.length), generator)

    def loss(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the cross entropies in nats, and the number of masked positions.

        The product of a mean in fp32 and a count is exact in fp64, and so is its quotient by the same count: whoever
        divides has the mean, and its gradient, to the bit.
        """
        mean = self.forward.loss(model, batch["input_ids"], batch["positions"], batch["labels"])
        return mean.double() * batch["labels"].numel(), self.weight(batch)

    def weight(self, batch: dict[str, Tensor]) -> Tensor:
        """Number of masked positions."""
        labels = batch["labels"]
        return torch.full((), labels.numel(), dtype=torch.float64, device=labels.device)

    def evaluation_set(self, prepared: PreparedData) -> EvaluationSet:
        """At most ``evaluation_rows`` validation blocks at even distances, with fixed masks.

        Raises:
            UserError: the validation split is shorter than one block.
        """
        blocks, rows = packed(prepared.validation, self.length), self.config.evaluation_rows
        batch = self._masked_as_evaluated(prepared, spread(blocks, rows))
        # A document may be longer than a row, and a row may hold parts of several documents.
        starts = spread_indices(len(blocks), rows)[:, None] * self.length
        documents = documents_at(prepared.validation, prepared.sep_id, starts + batch["positions"].numpy())
        return EvaluationSet(batch, tensor_fingerprint(*batch.values()), torch.from_numpy(documents))

    def training_sample(self, prepared: PreparedData, seed: int) -> EvaluationSet:
        """At most ``evaluation_rows`` of the training blocks in use, spread evenly and masked as for evaluation."""
        batch = self._masked_as_evaluated(prepared, self._blocks(prepared, seed).spread(self.config.evaluation_rows))
        return EvaluationSet(batch, tensor_fingerprint(*batch.values()))

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Cross entropy and accuracy at the masked positions."""
        return evaluate_predictions(model, data, self._logits)

    def calibration(self, prepared: PreparedData) -> Iterator[dict[str, Tensor]]:
        """Training rows masked as for evaluation, ``input_ids`` and ``labels`` [rows, sequence]."""
        blocks = self._blocks(prepared, CALIBRATION_SEED)
        generator = torch.Generator().manual_seed(CALIBRATION_SEED)
        count = self.config.evaluation_predictions(self.length)
        for step in range(len(blocks) // CALIBRATION_ROWS or 1):
            ids = torch.from_numpy(blocks.batch(step, min(CALIBRATION_ROWS, len(blocks))))
            masked = self._masked(prepared, ids, count, generator)
            labels = torch.full_like(ids, IGNORED).scatter_(1, masked["positions"], masked["labels"])
            yield {"input_ids": masked["input_ids"], "labels": labels}

    def baseline_loss(self, prepared: PreparedData, data: EvaluationSet) -> float:
        """Loss of predicting by token frequencies alone."""
        return frequency_loss(token_counts(prepared), data.labels.numpy())

    def _logits(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        return self.forward.logits(model, batch["input_ids"], batch["positions"])

    def _blocks(self, prepared: PreparedData, seed: int) -> Blocks:
        return Blocks(prepared.train, self.length, seed, self.data["fraction"])

    def _masked_as_evaluated(self, prepared: PreparedData, rows: np.ndarray) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        return self._masked(
            prepared, torch.from_numpy(rows), self.config.evaluation_predictions(self.length), generator
        )

    def _masked(self, prepared: PreparedData, ids: Tensor, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return mask_tokens(
            ids, count, generator,
            mask_id=prepared.mask_id, vocab_size=prepared.vocab_size, first_regular_id=prepared.first_regular_id,
        )  # fmt: skip


def mask_tokens(
    ids: Tensor, count: int, generator: torch.Generator, *, mask_id: int, vocab_size: int, first_regular_id: int
) -> dict[str, Tensor]:
    """Choose ``count`` positions of each row uniformly without replacement and hide them.

    Of the chosen ids 80 % become ``[MASK]``, 10 % a uniform regular token and 10 % stay, each independently. The count
    is fixed, so shapes are static; BERT's own draw has that count on average. ``[SEP]`` may be chosen like any other
    token: leaving it out would raise the rate of the other tokens in rows that hold one, and where a document ends is
    worth predicting. All work happens on the device of ``ids``, on which ``generator`` must be.

    Args:
        ids: rows to mask, shape [rows, sequence_length] int64; not changed.
        count: positions per row, at most the sequence length.
        generator: source of randomness; the result is a function of its state.
        mask_id: id of ``[MASK]``.
        vocab_size: ids are below it.
        first_regular_id: lowest id that may be put in place of a token.

    Returns:
        ``input_ids`` [rows, sequence_length], ``positions`` and ``labels`` [rows, count], all int64.
    """
    rows, length = ids.shape
    scores = torch.rand(rows, length, generator=generator, device=ids.device)
    positions = scores.topk(count, dim=1, sorted=False).indices.sort(dim=1).values
    labels = ids.gather(1, positions)
    fate = torch.rand(rows, count, generator=generator, device=ids.device)
    regular = torch.randint(first_regular_id, vocab_size, (rows, count), generator=generator, device=ids.device)
    shown = torch.where(fate < MASK_SHARE + RANDOM_SHARE, regular, labels).masked_fill(fate < MASK_SHARE, mask_id)
    return {"input_ids": ids.scatter(1, positions, shown), "positions": positions, "labels": labels}
