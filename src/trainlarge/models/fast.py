"""A lean forward pass over the library's own modules, for packed rows with full attention.

Same parameters and same results with fewer and larger operations: no masks, rotary tables computed once, weights cast
once a step. The last layer computes keys and values of every token, and everything else only at the positions that are
predicted. The residual stream stays in the parameters' type, products are of the type given.

It reads the weights of linear layers and does not call them: parametrizations act, replaced layers and hooks do not,
except factorized ones; so a model that rounds the inputs of its layers has no fast path. The number of heads and of
neurons is read off the weights, layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ModernBertForMaskedLM, PreTrainedModel, RobertaPreLayerNormForMaskedLM

from trainlarge.models.attention import Rotary, attend, join_heads, rotary_tables, rotate, split_heads
from trainlarge.models.input_rounding import rounds_inputs
from trainlarge.models.low_rank import last_product

Features = Callable[[Any, Tensor, Tensor, torch.dtype], Tensor]
"""(model, inputs [rows, sequence], positions [rows, m], type of the products) to what the output layer reads there,
[rows * m, width]."""


def fast_features(model: PreTrainedModel) -> Features | None:
    """The fast path of a model up to its output layer; None for a class or configuration that has none, and where
    inputs of layers are rounded."""
    path = None if rounds_inputs(model) else _PATHS.get(type(model))
    return path.features if path is not None and path.supports(model.config) else None


class _Path(NamedTuple):
    supports: Callable[[Any], bool]
    """Whether a configuration is the fixed case that ``features`` computes."""

    features: Features


class _Tokens(NamedTuple):
    """The tokens at which a layer's output is wanted; its keys and values are those of every token."""

    rows: int
    """Rows of the batch, which attention keeps apart."""

    wanted: Tensor | None
    """Their places among the [rows * sequence] tokens; None for all."""

    keys: Rotary | None = None
    """Rotary tables of every token, where positions are rotary."""

    queries: Rotary | None = None
    """Rotary tables of the wanted tokens."""

    def of(self, x: Tensor) -> Tensor:
        """The wanted tokens' vectors of [rows * sequence, width]."""
        return x if self.wanted is None else x.index_select(0, self.wanted)


def _every(inputs: Tensor, rotary: Rotary | None = None) -> _Tokens:
    return _Tokens(inputs.shape[0], None, rotary, rotary)


def _picked(inputs: Tensor, positions: Tensor, rotary: Rotary | None = None) -> _Tokens:
    starts = torch.arange(0, inputs.numel(), inputs.shape[1], device=inputs.device)
    queries = None if rotary is None else rotary.at(positions)
    return _Tokens(inputs.shape[0], (positions + starts.unsqueeze(1)).flatten(), rotary, queries)


def _modern(model: Any, inputs: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """ModernBERT (Warner et al. 2024)."""
    encoder, config = model.model, model.config
    base = config.rope_parameters["full_attention"]["rope_theta"]
    head_width = config.hidden_size // config.num_attention_heads
    rotary = rotary_tables(inputs.shape[1], head_width, base, dtype, inputs.device)
    x = encoder.embeddings(input_ids=inputs).flatten(0, 1)
    *layers, last = encoder.layers
    for layer in layers:
        x = _modern_layer(layer, x, _every(inputs, rotary), dtype)
    x = _modern_layer(last, x, _picked(inputs, positions, rotary), dtype)
    hidden = functional.gelu(_linear(encoder.final_norm(x).to(dtype), model.head.dense))
    return model.head.norm(hidden.to(x.dtype)).to(dtype)


def _modern_layer(layer: Any, x: Tensor, tokens: _Tokens, dtype: torch.dtype) -> Tensor:
    # Each half in a function of its own: without gradients, what one holds is free before the other begins.
    x = tokens.of(x) + _modern_attention(layer, layer.attn_norm(x).to(dtype), tokens)
    return x + _modern_mlp(layer.mlp, layer.mlp_norm(x).to(dtype))


def _modern_attention(layer: Any, normed: Tensor, tokens: _Tokens) -> Tensor:
    attention = layer.attn
    normed, weight, _ = last_product(normed, attention.Wqkv)
    inner = len(weight) // 3
    for_query, for_keys_values = weight.split([inner, 2 * inner])
    query = _query(functional.linear(tokens.of(normed), for_query), tokens, attention.head_dim)
    key, value = _key_value(functional.linear(normed, for_keys_values), tokens, attention.head_dim)
    dropout = attention.attention_dropout if layer.training else 0.0
    context = attend(query, key, value, dropout, attention.config._attn_implementation)
    return attention.out_drop(_linear(join_heads(context), attention.Wo))


def _modern_mlp(mlp: Any, normed: Tensor) -> Tensor:
    # Two products and not the halves of one: activations over every other half row are twice as slow.
    normed, weight, _ = last_product(normed, mlp.Wi)
    for_hidden, for_gate = weight.chunk(2)
    hidden = functional.gelu(functional.linear(normed, for_hidden))
    return _linear(mlp.drop(hidden * functional.linear(normed, for_gate)), mlp.Wo)


def _roberta(model: Any, inputs: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """RoBERTa (Liu et al. 2019) with the norms before the blocks."""
    encoder, head, first = model.roberta_prelayernorm, model.lm_head, model.config.pad_token_id + 1
    places = torch.arange(first, first + inputs.shape[1], device=inputs.device).unsqueeze(0)
    x = encoder.embeddings(input_ids=inputs, position_ids=places).flatten(0, 1)
    *layers, last = encoder.encoder.layer
    for layer in layers:
        x = _roberta_layer(layer, x, _every(inputs), dtype)
    x = _roberta_layer(last, x, _picked(inputs, positions), dtype)
    hidden = functional.gelu(_linear(encoder.LayerNorm(x).to(dtype), head.dense))
    return head.layer_norm(hidden.to(x.dtype)).to(dtype)


def _roberta_layer(layer: Any, x: Tensor, tokens: _Tokens, dtype: torch.dtype) -> Tensor:
    x = tokens.of(x) + _roberta_attention(layer.attention, layer.attention.LayerNorm(x).to(dtype), tokens)
    inner, output = layer.intermediate, layer.output
    hidden = functional.gelu(_linear(inner.LayerNorm(x).to(dtype), inner.dense))
    return x + output.dropout(_linear(hidden, output.dense))


def _roberta_attention(attention: Any, normed: Tensor, tokens: _Tokens) -> Tensor:
    core = attention.self
    query = _query(_linear(tokens.of(normed), core.query), tokens, core.attention_head_size)
    key, value = _key_value(_side_by_side(normed, core.key, core.value), tokens, core.attention_head_size)
    dropout = core.dropout.p if attention.training else 0.0
    context = attend(query, key, value, dropout, core.config._attn_implementation)
    return attention.output.dropout(_linear(join_heads(context), attention.output.dense))


def _query(product: Tensor, tokens: _Tokens, head_width: int) -> Tensor:
    """Queries, rotated, [rows, heads, n, head width], of [rows * n, heads * head width]."""
    (query,) = split_heads(product, tokens.rows, 1, head_width)
    return rotate(query, tokens.queries)


def _key_value(product: Tensor, tokens: _Tokens, head_width: int) -> tuple[Tensor, Tensor]:
    """Keys, rotated, and values, [rows, heads, sequence, head width], of [rows * sequence, 2 * heads * head width]."""
    key, value = split_heads(product, tokens.rows, 2, head_width)
    return rotate(key, tokens.keys), value


def _linear(x: Tensor, layer: nn.Module) -> Tensor:
    """The layer in the type of ``x``."""
    return functional.linear(*last_product(x, layer))


def _side_by_side(x: Tensor, *layers: Any) -> Tensor:
    """What layers with biases give for one input, joined; as one product, in the type of ``x``, where none of them is
    factorized."""
    if not all(isinstance(layer, nn.Linear) for layer in layers):
        return torch.cat([_linear(x, layer) for layer in layers], dim=-1)
    weight = torch.cat([layer.weight for layer in layers]).to(x.dtype)
    bias = torch.cat([layer.bias for layer in layers]).to(x.dtype)
    return functional.linear(x, weight, bias)


def _modern_supported(config: Any) -> bool:
    return (
        set(config.layer_types) == {"full_attention"}
        and config.rope_parameters["full_attention"]["rope_type"] == "default"
        and config.hidden_activation == config.classifier_activation == "gelu"
        and not (config.attention_bias or config.mlp_bias)
        and config.decoder_bias
    )


def _roberta_supported(config: Any) -> bool:
    return config.hidden_act == "gelu" and not config.is_decoder


_PATHS: dict[type, _Path] = {
    ModernBertForMaskedLM: _Path(_modern_supported, _modern),
    RobertaPreLayerNormForMaskedLM: _Path(_roberta_supported, _roberta),
}
