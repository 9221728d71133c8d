"""Parts of a lean forward pass over the library's own modules, for rows with full attention, packed or padded.

Same parameters and same results with fewer and larger operations: no masks of packed rows, rotary tables computed once,
weights cast once per step. The last layer computes keys and values of every token, and everything else only at the
tokens at which predictions are made, or from which rows are labelled. The residual stream stays in the parameters'
type, products are of the type given. A family puts the parts together (:class:`trainlarge.models.family.FastPath`).

They read the weights of linear layers and do not call them: parametrizations act, replaced layers and hooks do not,
except factorized layers and quantized inputs. The number of heads and of neurons is read off the weights, layer by
layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from trainlarge.models.attention import (
    Rotary,
    attend,
    join_heads,
    padding_bias,
    rotary_tables,
    rotate,
    split_heads,
)
from trainlarge.models.fake_quantize import is_quantizing
from trainlarge.models.families import MODEL_CLASSES
from trainlarge.models.family import FastPath
from trainlarge.models.low_rank import LinearLayer, last_product

if TYPE_CHECKING:
    from transformers.models.modernbert.modeling_modernbert import ModernBertMLP

__all__ = [
    "WantedTokens",
    "attend",
    "fast_path",
    "feed_forward",
    "first_tokens",
    "gated_feed_forward",
    "gelu_layer",
    "join_heads",
    "linear",
    "mean_of_tokens",
    "of_joint_layer",
    "of_three_layers",
    "padding_bias",
    "places",
    "rotary_tables",
    "with_tokens",
]

L = TypeVar("L")


def fast_path(model: PreTrainedModel) -> FastPath | None:
    """The fast path of a model up to its output layer.

    None for a class or configuration that has none.
    """
    known = MODEL_CLASSES.get(type(model).__name__)
    path = None if known is None else known[1].fast
    return path if path is not None and path.supports(model.config) else None


class WantedTokens(NamedTuple):
    """The tokens at which a layer's output is wanted; its keys and values are those of every token."""

    rows: int
    """Rows of the batch, which attention keeps apart."""

    wanted: Tensor | None
    """Their places among the [rows * sequence] tokens; None for all."""

    keys: Rotary | None = None
    """Rotary tables of every token, where positions are rotary."""

    queries: Rotary | None = None
    """Rotary tables of the wanted tokens."""

    bias: Tensor | None = None
    """What is added to the scores of rows with padding, see ``padding_bias``."""

    def of(self, x: Tensor) -> Tensor:
        """The wanted tokens' vectors of [rows * sequence, width]."""
        return x if self.wanted is None else x.index_select(0, self.wanted)


def with_tokens(
    layers: Iterable[L],
    inputs: Tensor,
    predicted: Tensor | None,
    rotary: Rotary | None = None,
    bias: Tensor | None = None,
) -> list[tuple[L, WantedTokens]]:
    """Each layer with the tokens at which its output is wanted: all, and in the last layer those of predictions.

    Args:
        layers: of the model, in order.
        inputs: token ids, [rows, sequence].
        predicted: where predictions are made: indices of tokens within their row, [rows, m]; None: everywhere.
        rotary: tables of every position, where positions are rotary.
        bias: added to scores, see ``padding_bias``; None where there is no padding.
    """
    every = WantedTokens(inputs.shape[0], None, rotary, rotary, bias)
    if predicted is None:
        return [(layer, every) for layer in layers]
    *others, last = layers
    starts = torch.arange(0, inputs.numel(), inputs.shape[1], device=inputs.device)
    at_predictions = WantedTokens(
        inputs.shape[0],
        (predicted + starts.unsqueeze(1)).flatten(),
        rotary,
        None if rotary is None else rotary.at(predicted),
        bias,
    )
    return [*((layer, every) for layer in others), (last, at_predictions)]


def first_tokens(inputs: Tensor) -> Tensor:
    """The first token of each row, as ``predicted`` of :func:`with_tokens`, [rows, 1]."""
    return inputs.new_zeros(len(inputs), 1)


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are no padding, [rows, width] of [rows * sequence, width]."""
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden.view(*mask.shape, -1) * weights).sum(1) / weights.sum(1)


def places(first: int, inputs: Tensor) -> Tensor:
    """Rows of a position table for [rows, sequence] tokens, counted from ``first``: [1, sequence]."""
    return torch.arange(first, first + inputs.shape[1], device=inputs.device).unsqueeze(0)


def of_joint_layer(
    normed: Tensor, layer: LinearLayer, tokens: WantedTokens, head_width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each [rows, heads, n, head width], of one layer without biases that makes all three.

    Args:
        normed: [rows * sequence, width].
        layer: [3 * heads * head width, width].
        tokens: for which queries are made.
        head_width: channels per head.
    """
    normed, weight, _ = last_product(normed, layer)
    inner = len(weight) // 3
    for_query, for_keys_values = torch.split(weight, [inner, 2 * inner])
    query = _query(functional.linear(tokens.of(normed), for_query), tokens, head_width)
    return query, *_key_value(functional.linear(normed, for_keys_values), tokens, head_width)


def of_three_layers(
    normed: Tensor, layers: tuple[LinearLayer, LinearLayer, LinearLayer], tokens: WantedTokens, head_width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`of_joint_layer`, of one layer with biases for each of query, key and value."""
    for_query, for_key, for_value = layers
    query = _query(linear(tokens.of(normed), for_query), tokens, head_width)
    return query, *_key_value(_side_by_side(normed, for_key, for_value), tokens, head_width)


def feed_forward(normed: Tensor, inner: LinearLayer, output: LinearLayer) -> Tensor:
    """A feed-forward block with GELU, without its dropout."""
    return linear(functional.gelu(linear(normed, inner)), output)


def gated_feed_forward(mlp: ModernBertMLP, normed: Tensor) -> Tensor:
    """A block of ModernBERT's names: the gate stands in the lower half of the rows of ``Wi``."""
    # Two products and not the halves of one: activations over every other half row are twice as slow.
    normed, weight, _ = last_product(normed, mlp.Wi)
    for_hidden, for_gate = weight.chunk(2)
    hidden = functional.gelu(functional.linear(normed, for_hidden))
    return linear(mlp.drop(hidden * functional.linear(normed, for_gate)), mlp.Wo)


def gelu_layer(x: Tensor, layer: LinearLayer) -> Tensor:
    """A linear layer and GELU, in the type of ``x``."""
    return functional.gelu(linear(x, layer))


def linear(x: Tensor, layer: LinearLayer) -> Tensor:
    """The layer in the type of ``x``."""
    return functional.linear(*last_product(x, layer))


def _query(product: Tensor, tokens: WantedTokens, head_width: int) -> Tensor:
    """Queries, rotated, [rows, heads, n, head width], of [rows * n, heads * head width]."""
    (query,) = split_heads(product, tokens.rows, 1, head_width)
    return rotate(query, tokens.queries)


def _key_value(product: Tensor, tokens: WantedTokens, head_width: int) -> tuple[Tensor, Tensor]:
    """Keys, rotated, and values, [rows, heads, sequence, head width], of [rows * sequence, 2 * heads * head width]."""
    key, value = split_heads(product, tokens.rows, 2, head_width)
    return rotate(key, tokens.keys), value


def _side_by_side(x: Tensor, *layers: LinearLayer) -> Tensor:
    """What layers with biases give for one input, joined.

    It is one product, in the type of ``x``, where none of them is factorized or quantizes its inputs.
    """
    whole = [layer for layer in layers if isinstance(layer, nn.Linear) and not is_quantizing(layer)]
    if len(whole) < len(layers):
        return torch.cat([linear(x, layer) for layer in layers], dim=-1)
    weight = torch.cat([layer.weight for layer in whole]).to(x.dtype)
    bias = torch.cat([layer.bias for layer in whole]).to(x.dtype)
    return functional.linear(x, weight, bias)
