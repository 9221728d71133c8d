"""Evaluation sets, and what a model gives on one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trainlarge.config.group import Plain

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Device -> most tokens of a forward pass. On the CPU 16,384 took 1.2 to 1.4 times as long from 64 x 2 to 512 x 8,
since the C library returns blocks above 32 MB to the system each time, and several times the memory. Not measured on a
GPU."""
BATCH_NUMBERS = {"cpu": 1024 * 768}
"""Device -> most tokens times width, where wide models take fewer tokens: 1,024 at 768 x 12 took as long as 2,048, and
half the memory."""


@dataclass(frozen=True)
class EvaluationSet:
    """Fixed rows with what is to be predicted of each."""

    batch: Mapping[str, Tensor]
    """All rows, by the names of a batch: ``input_ids`` [rows, sequence], ``labels`` [rows, predictions], ..."""
    fingerprint: str
    """First 16 hex digits of SHA-256 over the tensors: cells compare only where it is equal."""
    documents: Tensor | None = None
    """Document of each prediction, [rows, predictions] int64; None: each row is one of its own."""
    predicts_tokens: bool = True
    """Whether labels are token ids."""
    rows: Tensor | None = None
    """Numbers of the rows in their split, [rows] int64; None for tasks on tokens."""
    by_length: bool = False
    """Whether rows of like lengths are evaluated together, without padding beyond the longest of them."""

    @property
    def labels(self) -> Tensor:
        """What is to be predicted, [rows, predictions] int64."""
        return self.batch["labels"]

    @property
    def tokens(self) -> Tensor:
        """The tokens to be predicted; where labels are none, those that are read."""
        if self.predicts_tokens:
            return self.labels
        return self.batch["input_ids"][self.batch["attention_mask"].bool()]


@dataclass(frozen=True)
class Evaluation:
    """How well a model does on an evaluation set."""

    metrics: Mapping[str, float]
    """Name -> value, as the task's metrics say; ``loss`` first."""
    losses: Tensor
    """Loss of each prediction, [rows, predictions], fp32, on the CPU."""
    predictions: Tensor | None = None
    """What is predicted of each row, its class or its number, [rows], on the CPU; None for tasks on tokens."""
    outputs: Tensor | None = None
    """What the model gives for each row, [rows, labels], fp32, on the CPU; None for tasks on tokens."""
    right: Tensor | None = None
    """Whether each prediction is right, [rows, predictions] bool, on the CPU; None where it is no class."""

    @property
    def loss(self) -> float:
        """Mean loss of a prediction."""
        return self.metrics["loss"]

    @property
    def row_losses(self) -> Tensor:
        """Mean loss of each row, [rows], fp32."""
        return self.losses.double().mean(1).float()


@dataclass(frozen=True)
class EvaluatedText:
    """How well a model does on one of ``data.evaluations``."""

    fingerprint: str
    """That of its evaluation set."""
    predictions: int
    """Predictions in it."""
    metrics: Mapping[str, float]
    """Name -> value, as the task's metrics say."""


def evaluated_text(data: EvaluationSet, evaluation: Evaluation) -> EvaluatedText:
    """What a record says of the evaluation of a text."""
    return EvaluatedText(data.fingerprint, data.labels.numel(), evaluation.metrics)


def texts_json(texts: Mapping[str, EvaluatedText]) -> dict[str, Plain] | None:
    """The key ``evaluations`` of a record: name of a text -> what it gave; None where there are none."""
    return {
        name: {"fingerprint": text.fingerprint, "predictions": text.predictions, **text.metrics}
        for name, text in texts.items()
    } or None


def perplexity(loss: float | None) -> float | None:
    """exp(loss) of a loss in nats per token; None where there is no loss, or that is no finite number (above 709)."""
    try:
        result = math.nan if loss is None else math.exp(loss)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def tensor_fingerprint(*tensors: Tensor) -> str:
    """First 16 hex digits of SHA-256 over shapes and values of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().astype("<f8" if tensor.is_floating_point() else "<i8").tobytes())
    return digest.hexdigest()[:16]


def batch_rows(model: PreTrainedModel, length: int) -> int:
    """Rows of ``length`` tokens that a forward pass of ``model`` takes on the device where it is."""
    device, width = model.device.type, getattr(model.config, "hidden_size", 1)
    tokens = min(BATCH_TOKENS[device], BATCH_NUMBERS.get(device, math.inf) // width)
    return max(1, int(tokens) // length)


@torch.no_grad()
def evaluate_predictions(
    model: PreTrainedModel, data: EvaluationSet, logits: Callable[[PreTrainedModel, dict[str, Tensor]], Tensor]
) -> Evaluation:
    """Cross entropy and accuracy of predictions of one class each.

    Args:
        model: evaluated in fp32 and without dropout, also under autocast; its mode is left as it was.
        data: what is to be predicted.
        logits: ``(model, batch) -> [rows * predictions, classes]``, in the order of ``labels.flatten()``.
    """

    def scored(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        scores, labels = logits(model, batch).float(), batch["labels"]
        losses = cross_entropy(scores, labels.flatten(), reduction="none").view_as(labels)
        return losses, (scores.argmax(-1) == labels.flatten()).view_as(labels)

    losses, hits = _of_all_rows(model, data, scored)
    metrics = {"loss": losses.double().mean().item(), "accuracy": hits.double().mean().item()}
    return Evaluation(metrics, losses.cpu(), right=hits.cpu())


@torch.no_grad()
def evaluate_rows(
    model: PreTrainedModel,
    data: EvaluationSet,
    logits: Callable[[PreTrainedModel, dict[str, Tensor]], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Losses [rows, 1] on the device of the model, and outputs [rows, labels] on the CPU, of a model that labels rows.

    Args:
        model: as for ``evaluate_predictions``.
        data: rows with one label each.
        logits: ``(model, batch) -> [rows, labels]``.
        loss: ``(outputs, labels) -> [rows, 1]``.
    """

    def scored(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        outputs = logits(model, batch).float()
        return loss(outputs, batch["labels"]), outputs

    losses, outputs = _of_all_rows(model, data, scored)
    return losses, outputs.cpu()


def _of_all_rows(
    model: PreTrainedModel, data: EvaluationSet, scored: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """What ``scored`` gives for all rows, in fp32 and without dropout, a few of them at a time."""
    was_training = model.training
    model.train(False)
    device, parts, places = model.device, [], []
    # Points of a curve are evaluated within a training step, which Lightning runs under autocast.
    with torch.autocast(device.type, enabled=False):
        for rows in _groups(model, data):
            batch = {name: tensor[rows] for name, tensor in data.batch.items()}
            batch = without_empty_columns(batch) if data.by_length else batch
            parts.append(scored({name: tensor.to(device) for name, tensor in batch.items()}))
            places.append(rows)
    model.train(was_training)
    first, second = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    order = torch.cat(places).argsort().to(device)
    return (first[order], second[order]) if data.by_length else (first, second)


def _groups(model: PreTrainedModel, data: EvaluationSet) -> Iterator[Tensor]:
    """Indices of the rows of each forward pass, int64: in their order, or the shortest first."""
    count, length = data.batch["input_ids"].shape
    if not data.by_length:
        yield from torch.split(torch.arange(count), batch_rows(model, length))
        return
    lengths = data.batch["attention_mask"].sum(1)
    order = lengths.argsort(stable=True)
    while len(order):
        # Rows as the longest of as many as the shortest allow: no group has more tokens than it may have.
        most = order[: batch_rows(model, int(lengths[order[0]]))]
        rows = most[: batch_rows(model, int(lengths[most[-1]]))]
        yield rows
        order = order[len(rows) :]


def without_empty_columns(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch that is padded at the end, as short as its longest row."""
    longest = int(batch["attention_mask"].sum(1).max())
    return {name: tensor if name == "labels" else tensor[:, :longest] for name, tensor in batch.items()}
