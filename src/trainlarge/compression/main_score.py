"""The score until which a recipe of a study trains: the task's main metric on rows that are not for the results."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from transformers import PreTrainedModel

from trainlarge.compression.layout.shapes import Tokens
from trainlarge.compression.layout.tokens import renumbered_batch
from trainlarge.compression.loaded_checkpoint import LoadedCheckpoint
from trainlarge.config.schema import TrainConfig
from trainlarge.models.flops import forward_flops
from trainlarge.models.shape import head_of, shape_of
from trainlarge.tasks.evaluation import EvaluationSet


class MainScore:
    """The task's main metric on the training rows held out for selection; where none are, on the training sample.

    Results are evaluated on other rows, so that training until a score does not choose what looks best there.

    Args:
        checkpoint: that of a train cell.
        config: that of the train cell.
    """

    def __init__(self, checkpoint: LoadedCheckpoint, config: TrainConfig) -> None:
        self.checkpoint, self.config = checkpoint, config
        self.name = config.task.main_metric
        self.higher_is_better = config.task.metrics[self.name].higher_is_better

    @cached_property
    def data(self) -> EvaluationSet:
        """The rows."""
        task, prepared = self.checkpoint.task, self.checkpoint.prepared
        return task.selection_set(prepared) or task.training_sample(prepared, self.config.seed)

    @cached_property
    def dense(self) -> float:
        """The score of the checkpoint itself."""
        with self.checkpoint.evaluated.holding(self.checkpoint.weights.as_stored()):
            return self.of(self.checkpoint.model, None)

    @cached_property
    def flops(self) -> int:
        """FLOPs of one evaluation, by formula, of rows of full length."""
        config, length = self.config, self.config.data.sequence_length
        predictions = config.task.evaluation_predictions(length)
        rows = len(next(iter(self.data.batch.values())))
        return rows * forward_flops(shape_of(config), length, predictions, head_of(config))

    def of(self, model: PreTrainedModel, tokens: Tokens | None) -> float:
        """The score of a model.

        Args:
            tokens: what is left of its vocabulary; None: all of it.
        """
        batch = renumbered_batch(self.data.batch, tokens, self.data.predicts_tokens)
        return self.checkpoint.task.evaluate(model, replace(self.data, batch=batch)).metrics[self.name]
