"""Classification: one label per row of text, a sentence or a pair of them (Devlin et al. 2019, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trainlarge.config.task import ClassificationConfig
from trainlarge.data.documents import frequency_loss
from trainlarge.data.label_table import LABEL
from trainlarge.data.labelled import LabelledData
from trainlarge.errors import UserError
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, evaluate_rows
from trainlarge.tasks.label_metrics import class_scores
from trainlarge.tasks.labelled_rows import LabelledRows


@dataclass(frozen=True)
class Classification(LabelledRows[ClassificationConfig]):
    """``labels`` [rows, 1] are the classes of rows, int64."""

    def loss(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the cross entropies in nats, and the number of rows."""
        labels = batch["labels"].flatten()
        return cross_entropy(self._logits(model, batch).float(), labels, reduction="sum").double(), self.weight(batch)

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Cross entropy, accuracy, F1 and Matthews correlation of the labels.

        Raises:
            UserError: on ``task.labels``, when the model has another number of labels.
        """
        if model.config.num_labels != self.config.labels:
            allowed = f"{model.config.num_labels}, the labels of the model"
            raise UserError("task.labels", self.config.labels, allowed)

        def entropies(outputs: Tensor, labels: Tensor) -> Tensor:
            return cross_entropy(outputs, labels.flatten(), reduction="none").view_as(labels)

        losses, outputs = evaluate_rows(model, data, self._logits, entropies)
        predictions = outputs.argmax(-1)
        scores = class_scores(data.labels.flatten().numpy(), predictions.numpy(), self.config.labels)
        metrics = {"loss": losses.double().mean().item(), **scores}
        right = predictions[:, None] == data.labels
        return Evaluation(metrics, losses.cpu(), predictions=predictions, outputs=outputs, right=right)

    def baseline(self, prepared: LabelledData, data: EvaluationSet) -> dict[str, float]:
        """Loss of predicting by the frequencies of the training labels alone; scores of its most frequent one."""
        labels = data.labels.flatten().numpy()
        counts = np.bincount(prepared.train_rows[LABEL].astype(np.int64), minlength=self.config.labels)
        majority = np.full(len(labels), counts.argmax())
        return {"loss": frequency_loss(counts, labels), **class_scores(labels, majority, self.config.labels)}
