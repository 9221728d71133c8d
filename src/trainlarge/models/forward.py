"""The forward pass that training and evaluation use: logits at the masked positions only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


def masked_logits(model: PreTrainedModel, inputs: Tensor, positions: Tensor) -> Tensor:
    """Logits over the vocabulary at the given positions of packed rows (no padding, so no attention mask).

    Args:
        model: a masked language model of the library.
        inputs: token ids, [rows, sequence].
        positions: positions within each row, [rows, m].

    Returns:
        [rows * m, vocabulary], in the order of ``positions.flatten()``.
    """
    return library_logits(model, inputs, positions)


def library_logits(model: PreTrainedModel, inputs: Tensor, positions: Tensor) -> Tensor:
    """:func:`masked_logits` through the library's own modules, for any masked language model.

    The prediction head sees only the picked positions where the architecture's head is known.
    """
    head = _HEADS.get(model.config.model_type)
    if head is None:
        return _picked(model(input_ids=inputs).logits, positions)
    return head(model, _picked(model.base_model(input_ids=inputs).last_hidden_state, positions))


def _picked(hidden: Tensor, positions: Tensor) -> Tensor:
    """[rows * m, channels] of [rows, sequence, channels]."""
    index = positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
    return hidden.gather(1, index).flatten(0, 1)


_HEADS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "modernbert": lambda model, hidden: model.decoder(model.head(hidden)),
    "roberta-prelayernorm": lambda model, hidden: model.lm_head(hidden),
}
