"""A compressed model against its checkpoint, prediction by prediction on the same rows: what both get wrong cancels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from trainlarge.sweep.resampling import resampled_means
from trainlarge.tasks.evaluation import Evaluation
from trainlarge.training.document_losses import Documents

LEVEL = 0.95
"""Share of the resamplings that an interval holds."""


@dataclass(frozen=True)
class Change:
    """By how much the mean of something per prediction changes."""

    value: float
    """Mean after compression, less the mean before."""
    low: float | None
    """Lower end of its interval; None for a single document."""
    high: float | None
    """Upper end."""

    @classmethod
    def of(cls, before: Tensor, after: Tensor, documents: Documents) -> Change:
        """The change of the mean of values [rows, predictions].

        The interval is that of a paired bootstrap over documents (Efron and Tibshirani 1993, section 13.3): the middle
        ``LEVEL`` of the changes in resampled documents, the same ones before and after.
        """
        changes = documents.sums(after.double() - before.double())
        value = float(changes.sum()) / float(documents.predictions.sum())
        if documents.count < 2:
            return cls(value, None, None)
        means = resampled_means(changes.numpy()[None], documents.predictions.double().numpy())
        low, high = np.quantile(means[0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return cls(value, float(low), float(high))


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
class ClassErrors:
    """How predictions of classes changed."""

    accuracy: Change
    """Of the share that is right."""
    turned: Turned
    """Those that turned."""
    mcnemar_p: float | None
    """See ``Turned``; None where a document has several predictions, which depend on each other."""


@dataclass(frozen=True)
class PairedErrors:
    """How the errors of a compressed model differ from those of its checkpoint on the same predictions."""

    loss: Change
    """Of the loss."""
    classes: ClassErrors | None = None
    """Of what is right; None where predictions are no classes."""

    @classmethod
    def of(cls, before: Evaluation, after: Evaluation, documents: Documents) -> PairedErrors:
        """Of two evaluations of the same rows, which ``documents`` divides."""
        loss = Change.of(before.losses, after.losses, documents)
        if before.right is None or after.right is None:
            return cls(loss)
        accuracy, turned = Change.of(before.right, after.right, documents), Turned.of(before.right, after.right)
        are_independent = bool((documents.predictions == 1).all())
        return cls(loss, ClassErrors(accuracy, turned, turned.mcnemar_p if are_independent else None))


def _log_binomial(whole: int, part: int) -> float:
    """ln of the number of ways to choose ``part`` of ``whole``."""
    return math.lgamma(whole + 1) - math.lgamma(part + 1) - math.lgamma(whole - part + 1)
