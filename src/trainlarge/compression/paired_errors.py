"""A compressed model against its checkpoint, prediction by prediction on the same rows: what both get wrong cancels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from trainlarge.compression.resampled_scores import SCORES
from trainlarge.sweep.resampling import Floats, resampled_means, times_drawn
from trainlarge.tasks.evaluation import Evaluation
from trainlarge.training.document_losses import Documents

LEVEL = 0.95
"""Share of the resamplings that an interval holds."""


@dataclass(frozen=True)
class Change:
    """By how much a score changes.

    The interval is that of a paired bootstrap over documents (Efron and Tibshirani 1993, section 13.3): the middle
    ``LEVEL`` of the changes in resampled documents, the same ones before and after.
    """

    value: float
    """Score after compression, less the score before."""
    low: float | None = None
    """Lower end of its interval; None for a single document, and for a score that is not known here."""
    high: float | None = None
    """Upper end."""

    @classmethod
    def of_mean(cls, before: Tensor, after: Tensor, documents: Documents) -> Change:
        """The change of the mean of values [rows, predictions]."""
        changes = documents.sums(after.double() - before.double())
        value = float(changes.sum()) / float(documents.predictions.sum())
        if documents.count < 2:
            return cls(value)
        [resampled] = resampled_means(changes.numpy()[None], documents.predictions.double().numpy())
        return cls(value, *_interval(resampled))

    @classmethod
    def of_score(cls, name: str, labels: Tensor, before: Evaluation, after: Evaluation) -> Change:
        """The change of a metric of predicted labels, where each row is a document."""
        value, score = after.metrics[name] - before.metrics[name], SCORES.get(name)
        pair = [one.predictions for one in (before, after) if one.predictions is not None]
        if score is None or len(pair) < 2 or before.outputs is None or len(labels) < 2:
            return cls(value)
        true, first, second = (tensor.double().flatten().numpy() for tensor in (labels, *pair))
        classes = before.outputs.shape[1]
        parts = [
            score(true, second, times, classes) - score(true, first, times, classes) for times in times_drawn(len(true))
        ]
        return cls(value, *_interval(np.concatenate(parts)))


@dataclass(frozen=True)
class Turned:
    """Predictions of classes that compression turned."""

    right_to_wrong: int
    """Right before, wrong after."""
    wrong_to_right: int
    """Wrong before, right after."""

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> Turned:
        """Of whether each prediction is right, bool of the same shape."""
        return cls(int((before & ~after).sum()), int((~before & after).sum()))

    @property
    def mcnemar_p(self) -> float:
        """Two-sided p of McNemar's test (1947) that either turn is as likely, exact: by the binomial distribution.

        Predictions must not depend on each other. 1 where nothing turned.
        """
        turned, fewer = self.right_to_wrong + self.wrong_to_right, min(self.right_to_wrong, self.wrong_to_right)
        logs = (_log_binomial(turned, count) - turned * math.log(2) for count in range(fewer + 1))
        return min(1.0, 2 * math.fsum(map(math.exp, logs)))


@dataclass(frozen=True)
class PairedErrors:
    """How the errors of a compressed model differ from those of its checkpoint on the same predictions."""

    loss: Change
    """Of the loss."""
    scores: Mapping[str, Change] = field(default_factory=dict)
    """Other metric of the task -> its change."""
    turned: Turned | None = None
    """Predictions of classes that turned; None where predictions are no classes."""
    mcnemar_p: float | None = None
    """See ``Turned``; None, too, where a document has several predictions, which depend on each other."""

    @classmethod
    def of(cls, before: Evaluation, after: Evaluation, documents: Documents, labels: Tensor) -> PairedErrors:
        """Of two evaluations of the same rows.

        Args:
            before: of the checkpoint.
            after: of the compressed model.
            documents: how predictions are divided between documents.
            labels: what is to be predicted, [rows, predictions].
        """
        loss = Change.of_mean(before.losses, after.losses, documents)
        scores = {name: Change.of_score(name, labels, before, after) for name in before.metrics if name != "loss"}
        was_right, is_right = (_right(evaluation, labels) for evaluation in (before, after))
        if was_right is None or is_right is None:
            return cls(loss, scores)
        if "accuracy" in scores:
            # Of tokens, too, which have documents.
            scores["accuracy"] = Change.of_mean(was_right, is_right, documents)
        turned = Turned.of(was_right, is_right)
        are_independent = bool((documents.predictions == 1).all())
        return cls(loss, scores, turned, turned.mcnemar_p if are_independent else None)


def _right(evaluation: Evaluation, labels: Tensor) -> Tensor | None:
    """Whether each prediction is right, [rows, predictions]; None where predictions are no classes."""
    predictions = evaluation.predictions
    if evaluation.right is None and predictions is not None and not predictions.is_floating_point():
        return predictions.view_as(labels) == labels
    return evaluation.right


def _interval(changes: Floats) -> tuple[float, float]:
    """The ends of the interval of changes in resampled documents, [draws]."""
    low, high = np.quantile(changes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _log_binomial(whole: int, part: int) -> float:
    """ln of the number of ways to choose ``part`` of ``whole``."""
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)
