"""RoBERTa (Liu et al. 2019, arXiv 1907.11692) with the norms before the blocks, as in Li et al. 2020.

It is an encoder with learned positions, biases everywhere and a feed-forward network without a gate.

The library draws every matrix from one normal distribution.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trainlarge.models.family import PAD_ID, Family, FamilyHead, FastPath, Head, ParameterCounts, StoredShape
from trainlarge.models.layout import LayerLayout, UnitLayout

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import (
        PretrainedConfig,
        RobertaPreLayerNormConfig,
        RobertaPreLayerNormForMaskedLM,
        RobertaPreLayerNormForSequenceClassification,
        RobertaPreLayerNormModel,
    )
    from transformers.models.roberta_prelayernorm.modeling_roberta_prelayernorm import RobertaPreLayerNormAttention

    from trainlarge.models import fast
    from trainlarge.models.shape import Shape


def _config(shape: Shape, _head: Head) -> RobertaPreLayerNormConfig:
    from transformers import RobertaPreLayerNormConfig

    return RobertaPreLayerNormConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        type_vocab_size=1,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=shape.tied,
    )


def _counts(shape: Shape) -> ParameterCounts:
    width, inner = shape.width, shape.ffn_width
    attention, ffn, norms = 4 * (width**2 + width), 2 * width * inner + inner + width, 4 * width
    return ParameterCounts(
        token_embedding=shape.vocab_size * width,
        position_embedding=shape.positions * width,
        encoder=shape.depth * (attention + ffn + norms),
        final_norm=2 * width,
        token_type_embedding=width,
        embedding_norm=2 * width,
    )


def _masked_lm_counts(shape: Shape) -> ParameterCounts:
    width = shape.width
    return ParameterCounts(
        head=width**2 + 3 * width + shape.vocab_size,
        untied_output=0 if shape.tied else shape.vocab_size * width,
        unused_bias=0 if shape.tied else shape.vocab_size,
    )


def _is_fast(config: PretrainedConfig) -> bool:
    return config.hidden_act == "gelu" and not config.is_decoder


def _features(model: RobertaPreLayerNormForMaskedLM, inputs: Tensor, predicted: Tensor, dtype: torch.dtype) -> Tensor:
    from trainlarge.models import fast

    encoder, head, padding = model.roberta_prelayernorm, model.lm_head, model.config.pad_token_id or 0
    embedded = encoder.embeddings(input_ids=inputs, position_ids=fast.places(padding + 1, inputs))
    last = _hidden(encoder, embedded, fast.with_tokens(encoder.encoder.layer, inputs, predicted), dtype)
    hidden = fast.gelu_layer(last.to(dtype), head.dense)
    normed: Tensor = head.layer_norm(hidden.to(last.dtype))
    return normed.to(dtype)


def _row_features(
    model: RobertaPreLayerNormForSequenceClassification, inputs: Tensor, mask: Tensor, dtype: torch.dtype
) -> Tensor:
    from trainlarge.models import fast

    encoder, head = model.roberta_prelayernorm, model.classifier
    layers = fast.with_tokens(
        encoder.encoder.layer, inputs, fast.first_tokens(inputs), bias=fast.padding_bias(mask, dtype)
    )
    hidden = head.dropout(_hidden(encoder, encoder.embeddings(input_ids=inputs), layers, dtype))
    features: Tensor = head.dropout(fast.linear(hidden.to(dtype), head.dense).tanh())
    return features


def _hidden(
    encoder: RobertaPreLayerNormModel,
    embedded: Tensor,
    layers: Iterable[tuple[Any, fast.WantedTokens]],
    dtype: torch.dtype,
) -> Tensor:
    """The last hidden vectors at the tokens that are wanted of the last layer, [rows * m, width]."""
    from trainlarge.models import fast

    x = embedded.flatten(0, 1)
    for layer, tokens in layers:
        attention, inner, output = layer.attention, layer.intermediate, layer.output
        x = tokens.of(x) + _attention(attention, attention.LayerNorm(x).to(dtype), tokens)
        x = x + output.dropout(fast.feed_forward(inner.LayerNorm(x).to(dtype), inner.dense, output.dense))
    hidden: Tensor = encoder.LayerNorm(x)
    return hidden


def _attention(attention: RobertaPreLayerNormAttention, normed: Tensor, tokens: fast.WantedTokens) -> Tensor:
    from trainlarge.models import fast

    core = attention.self
    query, key, value = fast.of_three_layers(
        normed, (core.query, core.key, core.value), tokens, core.attention_head_size
    )
    dropout = core.dropout.p if attention.training else 0.0
    context = fast.attend(query, key, value, dropout, core.config._attn_implementation, tokens.bias)
    output: Tensor = attention.output.dropout(fast.linear(fast.join_heads(context), attention.output.dense))
    return output


FAMILY = Family(
    name="roberta",
    model_type="roberta-prelayernorm",
    is_causal=False,
    rotary=False,
    positions_from_padding=True,
    ffn_matrices=2,
    # These are BERT's names: RoBERTa with either norm, XLM-RoBERTa, CamemBERT, ELECTRA and others share them.
    layout=LayerLayout(
        attention="attention.self",
        head_width="attention_head_size",
        heads=UnitLayout(
            ("attention.self.query", "attention.self.key", "attention.self.value"), 1, "attention.output.dense"
        ),
        neurons=UnitLayout(("intermediate.dense",), 1, "output.dense"),
    ),
    config=_config,
    counts=_counts,
    stored=StoredShape("hidden_dropout_prob", is_tied=True, fixed={"type_vocab_size": 1, "is_decoder": False}),
    heads={
        Head.MASKED_LM: FamilyHead(
            model_class="RobertaPreLayerNormForMaskedLM",
            counts=_masked_lm_counts,
            output="lm_head.decoder",
            output_norm="lm_head.layer_norm",
            has_dense=True,
            chain=("lm_head",),
            unused_bias="lm_head.bias",
            fast=FastPath(_is_fast, _features),
        ),
        Head.SEQUENCE_LABEL: FamilyHead(
            model_class="RobertaPreLayerNormForSequenceClassification",
            counts=lambda shape: ParameterCounts(head=(shape.width + 1) * (shape.width + shape.labels)),
            output="classifier.out_proj",
            output_norm=None,
            has_dense=True,
            fast=FastPath(_is_fast, _row_features),
        ),
    },
)
