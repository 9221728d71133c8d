"""Llama (Touvron et al. 2023, arXiv 2302.13971): a causal decoder with rotary positions.

It has root-mean-square norms before the blocks, a gated feed-forward network (SwiGLU) and no biases. Here every head
has keys and values of its own.

The library draws every matrix from one normal distribution. Llama has no dropout but that of attention weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainlarge.models.family import PAD_ID, ROTARY_BASE, Family, FamilyHead, Head, ParameterCounts, StoredShape
from trainlarge.models.layout import LayerLayout, UnitLayout

if TYPE_CHECKING:
    from transformers import LlamaConfig

    from trainlarge.models.shape import Shape


def _config(shape: Shape, _head: Head) -> LlamaConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.positions,
        rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE},
        attention_dropout=shape.dropout,
        tie_word_embeddings=shape.tied,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=None,
        # A cache of keys and values is for generating text; training and evaluation read whole rows.
        use_cache=False,
    )


def _counts(shape: Shape) -> ParameterCounts:
    width = shape.width
    layer = 4 * width**2 + 3 * width * shape.ffn_width + 2 * width
    return ParameterCounts(token_embedding=shape.vocab_size * width, encoder=shape.depth * layer, final_norm=width)


FAMILY = Family(
    name="llama",
    model_type="llama",
    is_causal=True,
    rotary=True,
    positions_from_padding=False,
    ffn_matrices=3,
    layout=LayerLayout(
        attention="self_attn",
        head_width="head_dim",
        heads=UnitLayout(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), 1, "self_attn.o_proj"),
        neurons=UnitLayout(("mlp.gate_proj", "mlp.up_proj"), 1, "mlp.down_proj"),
    ),
    config=_config,
    counts=_counts,
    stored=StoredShape("attention_dropout", is_tied=False, fixed={"attention_bias": False, "mlp_bias": False}),
    heads={
        Head.CAUSAL_LM: FamilyHead(
            model_class="LlamaForCausalLM",
            counts=lambda shape: ParameterCounts(untied_output=0 if shape.tied else shape.vocab_size * shape.width),
            output="lm_head",
            output_norm="model.norm",
            has_dense=False,
            chain=("lm_head",),
        ),
        Head.SEQUENCE_LABEL: FamilyHead(
            model_class="LlamaForSequenceClassification",
            counts=lambda shape: ParameterCounts(head=shape.labels * shape.width),
            output="score",
            output_norm="model.norm",
            has_dense=False,
            is_everywhere=True,
        ),
    },
)
