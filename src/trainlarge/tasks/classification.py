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
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, evaluate_predictions
from trainlarge.tasks.labelled_rows import LabelledRows


@dataclass(frozen=True)
class Classification(LabelledRows[ClassificationConfig]):
    """``labels`` [rows, 1] are the classes of rows, int64."""

    def loss(self, model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum of the cross entropies in nats, and the number of rows."""
        labels = batch["labels"].flatten()
        return cross_entropy(self._logits(model, batch).float(), labels, reduction="sum").double(), self.weight(batch)

    def evaluate(self, model: PreTrainedModel, data: EvaluationSet) -> Evaluation:
        """Cross entropy and accuracy of the labels.

        Raises:
            UserError: on ``task.labels``, when the model has another number of labels.
        """
        if model.config.num_labels != self.config.labels:
            allowed = f"{model.config.num_labels}, the labels of the model"
            raise UserError("task.labels", self.config.labels, allowed)
        return evaluate_predictions(model, data, self._logits)

    def baseline_loss(self, prepared: LabelledData, data: EvaluationSet) -> float:
        """Loss of predicting by the frequencies of the labels alone."""
        counts = np.bincount(prepared.train_rows[LABEL].astype(np.int64), minlength=self.config.labels)
        return frequency_loss(counts, data.labels.numpy())
