"""ModernBERT (Warner et al. 2024, arXiv 2412.13663): an encoder with rotary positions.

It has norms before the blocks, a gated feed-forward network (GeGLU) and no biases. Here every layer has full attention.

The library draws its weights from a normal distribution that is cut at two deviations, and divides the deviation of
output projections by sqrt(2 depth) (as in Megatron-LM).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trainlarge.models.family import (
    PAD_ID,
    ROTARY_BASE,
    Family,
    FamilyHead,
    FastPath,
    Head,
    ParameterCounts,
    StoredShape,
)
from trainlarge.models.layout import LayerLayout, UnitLayout

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import (
        ModernBertConfig,
        ModernBertForMaskedLM,
        ModernBertForSequenceClassification,
        ModernBertModel,
        PretrainedConfig,
    )
    from transformers.models.modernbert.modeling_modernbert import ModernBertEncoderLayer, ModernBertPredictionHead

    from trainlarge.models import fast
    from trainlarge.models.shape import Shape


def _config(shape: Shape, head: Head) -> ModernBertConfig:
    from transformers import ModernBertConfig

    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE}
    config = ModernBertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        layer_types=["full_attention"] * shape.depth,
        rope_parameters={"full_attention": dict(rotary), "sliding_attention": dict(rotary)},
        embedding_dropout=shape.dropout,
        attention_dropout=shape.dropout,
        mlp_dropout=shape.dropout,
        tie_word_embeddings=shape.tied,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=None,
        cls_token_id=None,
        sep_token_id=None,
    )
    if head is Head.SEQUENCE_LABEL:
        config.classifier_dropout = shape.dropout
    return config


def _counts(shape: Shape) -> ParameterCounts:
    width = shape.width
    layer = 4 * width**2 + 3 * width * shape.ffn_width + 2 * width
    return ParameterCounts(
        token_embedding=shape.vocab_size * width,
        # The first layer has no norm before its attention: the embedding's norm stands directly in front of it.
        encoder=shape.depth * layer - width,
        final_norm=width,
        embedding_norm=width,
    )


def _head_counts(shape: Shape) -> ParameterCounts:
    """The dense layer and the norm in front of every output layer."""
    return ParameterCounts(head=shape.width**2 + shape.width)


def _masked_lm_counts(shape: Shape) -> ParameterCounts:
    matrix = shape.vocab_size * shape.width
    return _head_counts(shape) + ParameterCounts(head=shape.vocab_size, untied_output=0 if shape.tied else matrix)


def _is_fast_body(config: PretrainedConfig) -> bool:
    return (
        set(config.layer_types) == {"full_attention"}
        and config.rope_parameters["full_attention"]["rope_type"] == "default"
        and config.hidden_activation == config.classifier_activation == "gelu"
        and not (config.attention_bias or config.mlp_bias)
    )


def _features(model: ModernBertForMaskedLM, inputs: Tensor, predicted: Tensor, dtype: torch.dtype) -> Tensor:
    hidden = _hidden(model.model, inputs, predicted, None, dtype)
    return _of_head(model.head, hidden, dtype).to(dtype)


def _row_features(
    model: ModernBertForSequenceClassification, inputs: Tensor, mask: Tensor, dtype: torch.dtype
) -> Tensor:
    from trainlarge.models import fast

    is_mean = model.config.classifier_pooling == "mean"
    hidden = _hidden(model.model, inputs, None if is_mean else fast.first_tokens(inputs), mask, dtype)
    pooled = fast.mean_of_tokens(hidden, mask) if is_mean else hidden
    features: Tensor = model.drop(_of_head(model.head, pooled, dtype))
    return features.to(dtype)


def _hidden(
    encoder: ModernBertModel, inputs: Tensor, predicted: Tensor | None, mask: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The last hidden vectors where predictions are made, or everywhere: [rows * m, width]."""
    from trainlarge.models import fast

    config = encoder.config
    rotary_parameters: Any = config.rope_parameters
    base = rotary_parameters["full_attention"]["rope_theta"]
    head_width = config.hidden_size // config.num_attention_heads
    rotary = fast.rotary_tables(inputs.shape[1], head_width, base, dtype, inputs.device)
    bias = None if mask is None else fast.padding_bias(mask, dtype)
    x = encoder.embeddings(input_ids=inputs).flatten(0, 1)
    layers: Iterable[Any] = encoder.layers
    for layer, tokens in fast.with_tokens(layers, inputs, predicted, rotary, bias):
        x = tokens.of(x) + _attention(layer, layer.attn_norm(x).to(dtype), tokens)
        x = x + fast.gated_feed_forward(layer.mlp, layer.mlp_norm(x).to(dtype))
    hidden: Tensor = encoder.final_norm(x)
    return hidden


def _of_head(head: ModernBertPredictionHead, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """The dense layer and the norm in front of every output layer, in the type of ``hidden``."""
    from trainlarge.models import fast

    normed: Tensor = head.norm(fast.gelu_layer(hidden.to(dtype), head.dense).to(hidden.dtype))
    return normed


def _attention(layer: ModernBertEncoderLayer, normed: Tensor, tokens: fast.WantedTokens) -> Tensor:
    from trainlarge.models import fast

    attention = layer.attn
    query, key, value = fast.of_joint_layer(normed, attention.Wqkv, tokens, attention.head_dim)
    dropout = attention.attention_dropout if layer.training else 0.0
    context = fast.attend(query, key, value, dropout, attention.config._attn_implementation, tokens.bias)
    output: Tensor = attention.out_drop(fast.linear(fast.join_heads(context), attention.Wo))
    return output


FAMILY = Family(
    name="modern",
    model_type="modernbert",
    is_causal=False,
    rotary=True,
    positions_from_padding=False,
    ffn_matrices=3,
    layout=LayerLayout(
        attention="attn",
        head_width="head_dim",
        heads=UnitLayout(("attn.Wqkv",), 3, "attn.Wo"),
        neurons=UnitLayout(("mlp.Wi",), 2, "mlp.Wo"),
    ),
    config=_config,
    counts=_counts,
    stored=StoredShape(
        "mlp_dropout", is_tied=True, fixed={"attention_bias": False, "mlp_bias": False, "norm_bias": False}
    ),
    heads={
        Head.MASKED_LM: FamilyHead(
            model_class="ModernBertForMaskedLM",
            counts=_masked_lm_counts,
            output="decoder",
            output_norm="head.norm",
            has_dense=True,
            chain=("head", "decoder"),
            fast=FastPath(lambda config: _is_fast_body(config) and config.decoder_bias, _features),
        ),
        Head.SEQUENCE_LABEL: FamilyHead(
            model_class="ModernBertForSequenceClassification",
            counts=lambda shape: _head_counts(shape) + ParameterCounts(head=(shape.width + 1) * shape.labels),
            output="classifier",
            output_norm="head.norm",
            has_dense=True,
            fast=FastPath(_is_fast_body, _row_features),
            poolings={"first": "cls", "mean": "mean"},
        ),
    },
)
