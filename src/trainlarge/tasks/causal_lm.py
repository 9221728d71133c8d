"""Causal language modelling: every next token of packed rows is predicted (Radford et al. 2018, equation 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.config.task import CausalLMConfig
from trainlarge.data.blocks import packed, spread
from trainlarge.data.prepare import PreparedData
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, evaluate_predictions, tensor_fingerprint
from trainlarge.tasks.packed_text import CALIBRATION_ROWS, CALIBRATION_SEED, IGNORED, PackedText


@dataclass(frozen=True)
class CausalLM(PackedText[CausalLMConfig]):
    """A batch has ``input_ids`` [rows, sequence] and, for each but the last, the token after it, ``labels`` [rows, m].

    Nothing is predicted at the last position: the next token is in another row.
    """

    def batch(self, prepared: PreparedData, seed: int, step: int, rows: int) -> dict[str, Tensor]:
        """Rows of the epoch's order."""
        return _with_next_tokens(self.blocks(prepared, seed).batch(step, rows))

    def loss(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the cross entropies in nats, and the number of predictions."""
        inputs, labels = batch["input_ids"], batch["labels"]
        mean = self.forward.loss(model, inputs, _predicted(labels), labels)
        return mean.double() * labels.numel(), self.weight(batch)

    def evaluation_set(self, prepared: PreparedData) -> EvaluationSet:
        """At most ``evaluation_rows`` validation blocks at even distances.

        Raises:
            UserError: the validation split is shorter than one block.
        """
        batch = _with_next_tokens(spread(packed(prepared.validation, self.length), self.config.evaluation_rows))
        documents = self.documents(prepared, np.arange(1, self.length))
        return EvaluationSet(batch, tensor_fingerprint(batch["input_ids"]), documents)

    def training_sample(self, prepared: PreparedData, seed: int) -> EvaluationSet:
        """At most ``evaluation_rows`` of the training blocks in use, spread evenly."""
        batch = _with_next_tokens(self.blocks(prepared, seed).spread(self.config.evaluation_rows))
        return EvaluationSet(batch, tensor_fingerprint(batch["input_ids"]))

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Cross entropy and accuracy of the next tokens."""
        return evaluate_predictions(model, data, self._logits)

    def calibration(self, prepared: PreparedData) -> Iterator[dict[str, Tensor]]:
        """Training rows, ``input_ids`` and ``labels`` [rows, sequence]: the next token stands where it is predicted."""
        blocks = self.blocks(prepared, CALIBRATION_SEED)
        for step in range(len(blocks) // CALIBRATION_ROWS or 1):
            ids = torch.from_numpy(blocks.batch(step, min(CALIBRATION_ROWS, len(blocks))))
            last = torch.full((len(ids), 1), IGNORED)
            yield {"input_ids": ids, "labels": torch.cat([ids[:, 1:], last], dim=1)}

    def _logits(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
        return self.forward.logits(model, batch["input_ids"], _predicted(batch["labels"]))


def _with_next_tokens(rows: NDArray[np.int64]) -> dict[str, Tensor]:
    ids = torch.from_numpy(rows)
    return {"input_ids": ids, "labels": ids[:, 1:].contiguous()}


def _predicted(labels: Tensor) -> Tensor:
    """Index of the token at which each of ``labels`` [rows, m] is predicted: the one before it."""
    return torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
