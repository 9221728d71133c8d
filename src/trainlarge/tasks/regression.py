"""Regression: one number per row of text, such as how alike two sentences are (Devlin et al. 2019, STS-B)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.config.task import RegressionConfig
from trainlarge.data.label_table import LABEL
from trainlarge.data.labelled import LabelledData
from trainlarge.errors import UserError
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, evaluate_rows
from trainlarge.tasks.label_metrics import number_scores
from trainlarge.tasks.labelled_rows import LabelledRows


@dataclass(frozen=True)
class Regression(LabelledRows[RegressionConfig]):
    """``labels`` [rows, 1] are numbers, fp32; a model has one output."""

    def loss(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the squared errors, and the number of rows."""
        errors = self._logits(model, batch).float() - batch["labels"]
        return errors.square().sum().double(), self.weight(batch)

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Mean squared error, Pearson's and Spearman's correlation.

        Raises:
            UserError: on ``task``, when the model has another number of outputs than one.
        """
        if model.config.num_labels != 1:
            raise UserError("task", self.config.name, f"classification: the model has {model.config.num_labels} labels")

        def errors(outputs: Tensor, labels: Tensor) -> Tensor:
            return (outputs - labels).square()

        losses, outputs = evaluate_rows(model, data, self._logits, errors)
        predictions = outputs.double().flatten()
        scores = number_scores(data.labels.double().flatten().numpy(), predictions.numpy())
        metrics = {"loss": losses.double().mean().item(), **scores}
        return Evaluation(metrics, losses.cpu(), predictions=predictions, outputs=outputs)

    def baseline(self, prepared: LabelledData, data: EvaluationSet) -> dict[str, float]:
        """Scores of predicting the mean of the training labels."""
        labels = data.labels.double().flatten().numpy()
        means = np.full(len(labels), float(prepared.train_rows[LABEL].mean()))
        return {"loss": float(((means - labels) ** 2).mean()), **number_scores(labels, means)}
