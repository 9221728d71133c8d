"""The checkpoint of a compress job: loaded once, with its data and the model on which all recipes are evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from trainlarge.compression.calibration import Calibration
from trainlarge.compression.checkpoint import Checkpoint
from trainlarge.compression.compressed import Compressed
from trainlarge.compression.evaluated_model import EvaluatedModel, is_large
from trainlarge.compression.layout.tokens import TokenFacts, renumbered_batch
from trainlarge.compression.weights import Weights
from trainlarge.data.documents import token_counts
from trainlarge.data.evaluation_texts import prepare_evaluations
from trainlarge.data.model_tokenizer import ModelTokenizer, model_tokenizer, tokenizer_of_checkpoint
from trainlarge.errors import UserError
from trainlarge.machine.implementation import Implementation
from trainlarge.models.build import load_model, own_dtypes
from trainlarge.models.fake_quantize import fake_quantized_inputs
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS
from trainlarge.tasks.evaluation import EvaluatedText, Evaluation, EvaluationSet, evaluated_text
from trainlarge.tasks.task import make_task
from trainlarge.training.document_losses import Documents


class LoadedCheckpoint:
    """A checkpoint in memory, ready to be compressed and evaluated.

    Args:
        parent: the checkpoint.
        implementation: how it is computed.
        data_root: where prepared data is kept.
    """

    def __init__(self, parent: Checkpoint, implementation: Implementation, data_root: Path) -> None:
        self.parent, self.implementation = parent, implementation
        model = load_model(parent.folder, attention=implementation.attention, head=Head(parent.task.head))
        # First what can be wrong and is quick to find: preparing data may take minutes.
        entries = len(cast(nn.Embedding, model.get_input_embeddings()).weight)
        tokenizer = _tokenizer(parent, entries)
        self.task = make_task(parent.task, parent.data, FORWARDS[implementation.forward])
        self.prepared = self.task.prepare(data_root, tokenizer)
        self.evaluation_set = self.task.evaluation_set(self.prepared)
        texts = prepare_evaluations(parent.data, self.prepared, data_root)
        self.text_sets = {name: self.task.evaluation_set(text.prepared) for name, text in texts.items()}
        self.documents = Documents.of(self.evaluation_set)
        # All is computed in fp32; what is packed is in the data types of the checkpoint.
        dtypes = own_dtypes(parent.folder, model)
        self.weights = Weights.of(model, on_disk=is_large(model), dtypes=dtypes)
        # The model itself is not kept: next to the one that takes its place its weights would be in memory twice.
        self.evaluated = EvaluatedModel(model, self.weights, implementation.device)
        self.model = cast(PreTrainedModel, self.evaluated.model)
        self.calibration = Calibration(self.weights, self.model, lambda: self.task.calibration(self.prepared))

    @cached_property
    def dense(self) -> Evaluation:
        """The evaluation of the checkpoint itself.

        Raises:
            UserError: its loss is no number.
        """
        with self.evaluated.holding(self.weights.as_stored()):
            evaluation = self.evaluate()
        if not math.isfinite(evaluation.loss):
            raise no_number(evaluation.loss, "checkpoint", self.parent.folder)
        return evaluation

    def token_facts(self) -> TokenFacts:
        """How often each token occurs in the training split, and which are special."""
        counts = torch.from_numpy(token_counts(self.prepared))
        return TokenFacts(counts, self.prepared.special_ids, self.prepared.unknown_id)

    def evaluate(self) -> Evaluation:
        """Evaluate the weights that the model holds."""
        return self.task.evaluate(self.model, self.evaluation_set)

    def evaluate_compressed(self, compressed: Compressed) -> tuple[Evaluation, dict[str, EvaluatedText]]:
        """On the evaluation set, and on each of ``data.evaluations``.

        It runs on the checkpoint's model where the weights fit into it, else on one of their own.

        Where the vocabulary was cut, tokens that are not left are read, and are to be predicted, as the unknown token;
        the record's ``unknown_share`` says how many. Such a loss is not that of the whole vocabulary.
        """
        if not compressed.has_other_shapes:
            packed = compressed.packed
            with self.evaluated.holding(packed.stored), fake_quantized_inputs(self.model, packed.quantizers):
                return self._on_all(partial(self.task.evaluate, self.model))
        model = cast(PreTrainedModel, compressed.model().float().to(self.implementation.device))
        tokens = compressed.left.structure.tokens

        def evaluate(data: EvaluationSet) -> Evaluation:
            batch = renumbered_batch(data.batch, tokens, data.predicts_tokens)
            return self.task.evaluate(model, replace(data, batch=batch))

        return self._on_all(evaluate)

    def _on_all(self, evaluate: Callable[[EvaluationSet], Evaluation]) -> tuple[Evaluation, dict[str, EvaluatedText]]:
        texts = {name: evaluated_text(data, evaluate(data)) for name, data in self.text_sets.items()}
        return evaluate(self.evaluation_set), texts


def _tokenizer(parent: Checkpoint, entries: int) -> ModelTokenizer | None:
    """What reads the text; None for one that is trained on it, as that of a train cell from initial weights is."""
    if parent.trained is None:
        return model_tokenizer(parent.folder, entries)
    return tokenizer_of_checkpoint(parent.folder, entries) if parent.trained.checkpoint else None


def no_number(loss: float, key: str, value: object) -> UserError:
    """The error of a key that leads to a loss which is no number."""
    return UserError(key, value, f"one whose model has a finite loss: this one's is {loss}")
