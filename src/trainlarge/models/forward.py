"""The forward pass of training and evaluation: prediction heads see the tokens that they need and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from trainlarge.models.families import MODEL_CLASSES
from trainlarge.models.fast import fast_path
from trainlarge.models.loss import output_cross_entropy
from trainlarge.models.low_rank import LinearLayer, last_product


def logits_at(model: PreTrainedModel, inputs: Tensor, predicted: Tensor) -> Tensor:
    """Logits over the vocabulary at the given tokens of packed rows (no padding, so no attention mask).

    Under autocast, products are of autocast's type; else of the parameters' type.

    Args:
        model: a language model of the library; those that :func:`build_model` makes take the fast path.
        inputs: token ids, [rows, sequence].
        predicted: where predictions are made: indices of tokens within their row, [rows, m].

    Returns:
        [rows * m, vocabulary], in the order of ``predicted.flatten()``.
    """
    path = fast_path(model)
    if path is None:
        return library_logits(model, inputs, predicted)
    with _explicit_casts(model) as dtype:
        return functional.linear(*_output_product(model, path.features(model, inputs, predicted, dtype)))


def loss_at(model: PreTrainedModel, inputs: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy in nats at the given tokens: that of :func:`logits_at`, with less memory and time.

    Args:
        model: as for :func:`logits_at`.
        inputs: token ids, [rows, sequence].
        predicted: where predictions are made: indices of tokens within their row, [rows, m].
        labels: the right token id of each prediction, [rows, m].

    Returns:
        A scalar in fp32, or in the parameters' type where that is wider.
    """
    path = fast_path(model)
    if path is None:
        return library_loss(model, inputs, predicted, labels)
    with _explicit_casts(model) as dtype:
        hidden, weight, bias = _output_product(model, path.features(model, inputs, predicted, dtype))
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return output_cross_entropy(hidden, weight, bias, labels.flatten())


def library_logits(model: PreTrainedModel, inputs: Tensor, predicted: Tensor) -> Tensor:
    """:func:`logits_at` through the library's own modules, for any model with logits at every token.

    The prediction head sees only the picked tokens where the model is one of a known family.
    """
    known = MODEL_CLASSES.get(type(model).__name__)
    if known is None or not known[1].chain:
        return _picked(model(input_ids=inputs).logits, predicted)
    hidden = _picked(model.base_model(input_ids=inputs).last_hidden_state, predicted)
    for name in known[1].chain:
        hidden = model.get_submodule(name)(hidden)
    return hidden


def library_loss(model: PreTrainedModel, inputs: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
    """:func:`loss_at` through the library's own modules."""
    return functional.cross_entropy(library_logits(model, inputs, predicted).float(), labels.flatten())


def row_logits(model: PreTrainedModel, inputs: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
    """Logits of whole rows. Under autocast, products are of autocast's type; else of the parameters' type.

    Args:
        model: with a head that labels rows; those that :func:`build_model` makes take the fast path of their family.
        inputs: token ids, [rows, sequence].
        mask: 1 where a token counts, 0 where it is padding, [rows, sequence].
        segments: 1 at the second of two texts, else 0, [rows, sequence]; None: all 0. With them, the library's modules
            compute.

    Returns:
        [rows, labels].
    """
    path = fast_path(model)
    if path is None or segments is not None:
        return library_row_logits(model, inputs, mask, segments)
    output: LinearLayer = model.get_submodule(MODEL_CLASSES[type(model).__name__][1].output)  # type: ignore[assignment]
    with _explicit_casts(model) as dtype:
        return functional.linear(*last_product(path.features(model, inputs, mask, dtype), output))


def library_row_logits(model: PreTrainedModel, inputs: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
    """:func:`row_logits` through the library's own modules."""
    types = {} if segments is None else {"token_type_ids": segments}
    logits: Tensor = model(input_ids=inputs, attention_mask=mask, **types).logits
    return logits


@contextmanager
def _explicit_casts(model: PreTrainedModel) -> Iterator[torch.dtype]:
    """The type that products have now; autocast itself is off inside, so that casts are those that are written."""
    # Of the first parameter, since the library's own look-up takes a share of a small model's step.
    weight = next(model.parameters())
    device = weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    with torch.autocast(device, enabled=False):
        yield dtype


def _output_product(model: PreTrainedModel, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the last product of the output layer reads, its matrix [vocabulary, width or rank] and its bias."""
    layer: LinearLayer = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return last_product(hidden, layer)


def _picked(hidden: Tensor, predicted: Tensor) -> Tensor:
    """[rows * m, channels] of [rows, sequence, channels]."""
    index = predicted.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
    return hidden.gather(1, index).flatten(0, 1)


@dataclass(frozen=True)
class Forward:
    """A forward pass, for training and for evaluation."""

    loss: Callable[..., Tensor]
    """Mean loss of predictions, ``(model, inputs, predicted, labels) -> []``."""
    logits: Callable[..., Tensor]
    """Logits of predictions, ``(model, inputs, predicted) -> [rows * m, V]``."""
    row_logits: Callable[..., Tensor] = library_row_logits
    """Logits of rows, ``(model, inputs, mask, segments) -> [rows, labels]``."""


FORWARDS = {"fast": Forward(loss_at, logits_at, row_logits), "library": Forward(library_loss, library_logits)}
"""Forward passes by the name that ``impl.forward`` gives them."""
