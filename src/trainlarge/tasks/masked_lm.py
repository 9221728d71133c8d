"""Masked language modelling (Devlin et al. 2019, section 3.1), with new masks in every batch (Liu et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.blocks import packed, spread, step_seed
from trainlarge.data.model_tokenizer import ModelTokenizer
from trainlarge.data.prepare import PreparedData
from trainlarge.errors import UserError
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, evaluate_predictions, tensor_fingerprint
from trainlarge.tasks.packed_text import CALIBRATION_ROWS, CALIBRATION_SEED, IGNORED, PackedText

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1
"""The rest, 10 %, stay as they are."""
EVALUATION_SEED = 2002_11794
"""Seed of the evaluation masks, the same for all cells."""


@dataclass(frozen=True)
class MaskedLM(PackedText[MaskedLMConfig]):
    """Some tokens of packed rows are hidden, and predicted.

    A batch has ``input_ids`` [rows, sequence], the indices of the tokens to predict within their row, ``predicted``
    [rows, m], ascending in each row, and the ids that stood there, ``labels`` [rows, m]. Every row has as many, so that
    shapes are static.
    """

    def prepare(self, root: Path, tokenizer: ModelTokenizer | None = None) -> PreparedData:
        """Tokenizer and token files of the text.

        Raises:
            UserError: on ``checkpoint``, when its tokenizer has no mask token.
        """
        if tokenizer is not None and tokenizer.mask_id is None:
            raise UserError("checkpoint", tokenizer.file.parent, "a folder whose tokenizer has a mask token")
        return super().prepare(root, tokenizer)

    def batch(self, prepared: PreparedData, seed: int, step: int, rows: int) -> dict[str, Tensor]:
        """Rows of the epoch's order, with other masks for every (seed, step), the same for the same."""
        ids = torch.from_numpy(self.blocks(prepared, seed).batch(step, rows))
        # On the CPU, also where a GPU computes the step: the generator of a GPU gives other numbers for the same seed.
        generator = torch.Generator().manual_seed(step_seed(seed, step))
        return self._masked(prepared, ids, self.config.predictions(self.length), generator)

    def loss(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the cross entropies in nats, and the number of masked positions.

        The product of a mean in fp32 and a count is exact in fp64, and so is its quotient by the same count:
        dividing gives the mean and its gradient bit by bit.
        """
        mean = self.forward.loss(model, batch["input_ids"], batch["predicted"], batch["labels"])
        return mean.double() * batch["labels"].numel(), self.weight(batch)

    def evaluation_set(self, prepared: PreparedData) -> EvaluationSet:
        """At most ``evaluation_rows`` validation blocks at even distances, with fixed masks.

        Raises:
            UserError: the validation split is shorter than one block.
        """
        rows = spread(packed(prepared.validation, self.length), self.config.evaluation_rows)
        batch = self._masked_as_evaluated(prepared, rows)
        documents = self.documents(prepared, batch["predicted"].numpy())
        return EvaluationSet(batch, tensor_fingerprint(*batch.values()), documents)

    def training_sample(self, prepared: PreparedData, seed: int) -> EvaluationSet:
        """At most ``evaluation_rows`` of the training blocks in use, spread evenly and masked as for evaluation."""
        batch = self._masked_as_evaluated(prepared, self.blocks(prepared, seed).spread(self.config.evaluation_rows))
        return EvaluationSet(batch, tensor_fingerprint(*batch.values()))

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Cross entropy and accuracy at the masked positions."""
        return evaluate_predictions(model, data, self._logits)

    def calibration(self, prepared: PreparedData) -> Iterator[dict[str, Tensor]]:
        """Training rows masked as for evaluation, ``input_ids`` and ``labels`` [rows, sequence]."""
        blocks = self.blocks(prepared, CALIBRATION_SEED)
        generator = torch.Generator().manual_seed(CALIBRATION_SEED)
        count = self.config.evaluation_predictions(self.length)
        for step in range(len(blocks) // CALIBRATION_ROWS or 1):
            ids = torch.from_numpy(blocks.batch(step, min(CALIBRATION_ROWS, len(blocks))))
            masked = self._masked(prepared, ids, count, generator)
            labels = torch.full_like(ids, IGNORED).scatter_(1, masked["predicted"], masked["labels"])
            yield {"input_ids": masked["input_ids"], "labels": labels}

    def _logits(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        return self.forward.logits(model, batch["input_ids"], batch["predicted"])

    def _masked_as_evaluated(self, prepared: PreparedData, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        return self._masked(
            prepared, torch.from_numpy(rows), self.config.evaluation_predictions(self.length), generator
        )

    def _masked(self, prepared: PreparedData, ids: Tensor, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        return mask_tokens(
            ids,
            count,
            generator,
            mask_id=prepared.mask_id,
            vocab_size=prepared.vocab_size,
            first_regular_id=prepared.first_regular_id,
        )


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
        ``input_ids`` [rows, sequence_length], ``predicted`` and ``labels`` [rows, count], all int64.
    """
    rows, length = ids.shape
    scores = torch.rand(rows, length, generator=generator, device=ids.device)
    positions = scores.topk(count, dim=1, sorted=False).indices.sort(dim=1).values
    labels = ids.gather(1, positions)
    fate = torch.rand(rows, count, generator=generator, device=ids.device)
    regular = torch.randint(first_regular_id, vocab_size, (rows, count), generator=generator, device=ids.device)
    shown = torch.where(fate < MASK_SHARE + RANDOM_SHARE, regular, labels).masked_fill(fate < MASK_SHARE, mask_id)
    return {"input_ids": ids.scatter(1, positions, shown), "predicted": positions, "labels": labels}
