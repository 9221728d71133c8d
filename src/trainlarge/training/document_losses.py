"""Losses summed over the documents of the evaluation set: what standard errors and comparisons are made from.

Rows of one document are no independent observations, so errors are over documents (Cameron and Miller,
"A practitioner's guide to cluster-robust inference", 2015, sections II and VI).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainlarge.config.group import Plain
from trainlarge.tasks.evaluation import EvaluationSet

DIGITS = 4
"""Decimals that are kept of a sum: its documents have tens of predictions each."""


@dataclass(frozen=True)
class Documents:
    """How the predictions of an evaluation set are divided between documents."""

    ids: Tensor
    """Numbers of the documents of which something is predicted, ascending, [documents] int64."""
    predictions: Tensor
    """Predictions of each, [documents] int64."""
    index: Tensor
    """Place in ``ids`` of the document of each prediction, [rows * predictions] int64."""

    @classmethod
    def of(cls, data: EvaluationSet) -> Documents:
        """The documents of an evaluation set; each row is one where it does not know better."""
        rows = torch.arange(len(data.labels))[:, None].expand_as(data.labels)
        documents = rows if data.documents is None else data.documents
        ids, index, predictions = documents.flatten().unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        return cls(ids, predictions, index)

    @property
    def count(self) -> int:
        """Number of documents."""
        return len(self.ids)

    @property
    def effective(self) -> float:
        """Number of equally long documents that would tell as much: (sum n)^2 / sum n^2 (Kish 1965, section 8.2)."""
        counts = self.predictions.double()
        return float(counts.sum() ** 2 / (counts**2).sum())

    def sums(self, losses: Tensor) -> Tensor:
        """``losses`` [rows, predictions] summed over each document, [documents] fp64."""
        nothing = torch.zeros(len(self.ids), dtype=torch.float64)
        return nothing.index_add_(0, self.index, losses.double().flatten())

    def standard_error(self, losses: Tensor) -> float:
        """Standard error of the mean of ``losses`` [rows, predictions] over documents; 0 for a single document.

        The mean is a ratio of two sums over documents: sqrt(G / (G - 1) * sum (S_d - n_d * mean)^2) / sum n_d.
        """
        if self.count < 2:
            return 0.0
        sums, predictions = self.sums(losses), self.predictions.double()
        rest = sums - predictions * (sums.sum() / predictions.sum())
        return math.sqrt(self.count / (self.count - 1) * float((rest**2).sum())) / float(predictions.sum())

    def file(self, **losses: Tensor) -> dict[str, Plain]:
        """Content of ``document_losses.json``: numbers, predictions and, for each of ``losses``, sums of documents."""
        content: dict[str, Plain] = {"documents": self.ids.tolist(), "predictions": self.predictions.tolist()}
        for name, values in losses.items():
            content[name] = [round(total, DIGITS) for total in self.sums(values).tolist()]
        return content
