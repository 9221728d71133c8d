"""Forward passes that keep what a model computes on the way: logits, hidden states and attention maps of layers.

Logits alone are kept of the fast forward pass, too. It computes the last layer at some tokens only, and no modules of
it can be watched; so what layers compute is that of the library's own modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainlarge.models.families import MODEL_CLASSES
from trainlarge.models.forward import FORWARDS, Forward

_KEEPING = "trainlarge_keeping"
"""The library's name of the attention that keeps its scores."""
_KEPT_BY = "_trainlarge_kept_by"
"""Attribute of an attention module, while it is watched: where its map is kept, and under which number."""


@dataclass(frozen=True)
class AttentionMap:
    """The attention of one layer."""

    scores: Tensor
    """Q K' / sqrt(head width), before the mask, [rows, heads, queries, keys]."""
    mask: Tensor | None
    """What is added to them, [rows or 1, 1, queries, keys]; None: 0."""

    def with_mask(self) -> Tensor:
        """What the softmax is taken of, float32, of the shape of the scores."""
        scores = self.scores.float()
        return scores if self.mask is None else scores + self.mask

    def is_seen(self) -> Tensor:
        """Which keys a query may attend to, bool, broadcast against the scores."""
        if self.mask is None:
            return torch.ones((1, 1, 1, 1), dtype=torch.bool, device=self.scores.device)
        return self.mask > torch.finfo(self.mask.dtype).min / 2


@dataclass(frozen=True)
class Watched:
    """What of a model's layers is kept."""

    layers: str
    """Name of the list of layers."""
    hidden: frozenset[int] = frozenset()
    """Hidden states: 0 is what the first layer reads, i + 1 what layer i gives."""
    attention: frozenset[int] = frozenset()
    """Layers whose attention is kept, of a model of a known family: of others it is not known what it does."""


class Capture:
    """Keeps what the last forward pass computed.

    Args:
        watched: what of the layers is kept; None: logits alone.
    """

    def __init__(self, watched: Watched | None) -> None:
        self.watched = watched
        self.logits: Tensor | None = None
        """Those of predictions, [predictions, classes]; None before the first forward pass."""
        self.hidden: dict[int, Tensor] = {}
        """Number of a hidden state -> [rows, sequence, width]."""
        self.attention: dict[int, AttentionMap] = {}
        """Layer -> its attention."""

    def over(self, forward: Forward) -> Forward:
        """Forward passes for a task, of which what is computed is kept.

        Args:
            forward: computes logits where nothing else is kept; else the library's own modules do.
        """
        base = forward if self.watched is None else FORWARDS["library"]

        def logits(model: PreTrainedModel, inputs: Tensor, predicted: Tensor) -> Tensor:
            with self._watching(model):
                found = self.logits = base.logits(model, inputs, predicted)
            return found

        def row_logits(model: PreTrainedModel, inputs: Tensor, mask: Tensor, segments: Tensor | None = None) -> Tensor:
            with self._watching(model):
                found = self.logits = base.row_logits(model, inputs, mask, segments)
            return found

        def loss(model: PreTrainedModel, inputs: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(logits(model, inputs, predicted).float(), labels.flatten())

        return Forward(loss, logits, row_logits)

    def clear(self) -> None:
        """Let go of what was kept."""
        self.logits, self.hidden, self.attention = None, {}, {}

    def loss_of(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss that the model itself computes of a batch of keyword arguments with labels, []."""
        with self._watching(model):
            output = model(**batch)
        labels = batch["labels"]
        is_of_tokens = labels.ndim == 2 and output.logits.ndim == 3
        self.logits = output.logits[labels != -100] if is_of_tokens else output.logits
        return cast(Tensor, output.loss)

    @contextmanager
    def _watching(self, model: PreTrainedModel) -> Iterator[None]:
        """Within the block, forward passes of the model leave what is watched here."""
        self.clear()
        if self.watched is None:
            yield
            return
        layers = cast(nn.ModuleList, model.get_submodule(self.watched.layers))
        with ExitStack() as stack:
            for state in self.watched.hidden:
                stack.callback(self._hook(layers, state).remove)
            if self.watched.attention:
                stack.enter_context(self._keeping_attention(model, layers))
            yield

    def _hook(self, layers: nn.ModuleList, state: int) -> torch.utils.hooks.RemovableHandle:
        def given(_layer: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            self.hidden[state] = output if isinstance(output, Tensor) else output[0]

        def read(_layer: nn.Module, inputs: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> None:
            self.hidden[state] = inputs[0] if inputs else named["hidden_states"]

        if state:
            return layers[state - 1].register_forward_hook(given)
        return layers[0].register_forward_pre_hook(read, with_kwargs=True)

    @contextmanager
    def _keeping_attention(self, model: PreTrainedModel, layers: nn.ModuleList) -> Iterator[None]:
        watched = cast(Watched, self.watched)
        name, config = MODEL_CLASSES[type(model).__name__][0].layout.attention, model.config
        modules = {index: layers[index].get_submodule(name) for index in watched.attention}
        before = config._attn_implementation
        # All layers of a model have one implementation; those that are not watched keep nothing.
        config._attn_implementation = _KEEPING
        for index, module in modules.items():
            setattr(module, _KEPT_BY, (self.attention, index))
        try:
            yield
        finally:
            config._attn_implementation = before
            for module in modules.values():
                delattr(module, _KEPT_BY)


def _attention(  # noqa: PLR0913  as the library calls it
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """The library's eager attention, which keeps the scores of modules that are watched."""
    # Several queries may share a head of keys and values.
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = torch.matmul(query, key.mT) * scaling
    if kept := getattr(module, _KEPT_BY, None):
        kept[0][kept[1]] = AttentionMap(scores, attention_mask)
    biased = scores if attention_mask is None else scores + attention_mask
    weights = functional.softmax(biased, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = functional.dropout(weights, dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


ALL_ATTENTION_FUNCTIONS.register(_KEEPING, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_KEEPING, eager_mask)
