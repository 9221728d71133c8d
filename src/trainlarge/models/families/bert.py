"""BERT (Devlin et al. 2019, arXiv 1810.04805): an encoder with learned positions and the norms after the blocks.

It has biases everywhere and a feed-forward network without a gate. Pairs of labelled texts are of two segments; with
all else, the second segment vector is trained by nothing.

The library draws every matrix from one normal distribution.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trainlarge.models.families.roberta import FAMILY as ROBERTA
from trainlarge.models.family import PAD_ID, Family, FamilyHead, Head, ParameterCounts, StoredShape

if TYPE_CHECKING:
    from transformers import BertConfig

    from trainlarge.models.shape import Shape

SEGMENTS = 2


def _config(shape: Shape, _head: Head) -> BertConfig:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.width,
        intermediate_size=shape.ffn_width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        type_vocab_size=SEGMENTS,
        pad_token_id=PAD_ID,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=shape.tied,
    )


def _counts(shape: Shape) -> ParameterCounts:
    """RoBERTa's, with a second segment and no norm behind the last block."""
    return replace(ROBERTA.counts(shape), final_norm=0, token_type_embedding=SEGMENTS * shape.width)


FAMILY = Family(
    name="bert",
    model_type="bert",
    is_causal=False,
    rotary=False,
    positions_from_padding=False,
    ffn_matrices=2,
    segments=SEGMENTS,
    layout=ROBERTA.layout,
    config=_config,
    counts=_counts,
    stored=StoredShape("hidden_dropout_prob", is_tied=True, fixed={"type_vocab_size": SEGMENTS, "is_decoder": False}),
    heads={
        Head.MASKED_LM: FamilyHead(
            model_class="BertForMaskedLM",
            counts=ROBERTA.head(Head.MASKED_LM).counts,
            output="cls.predictions.decoder",
            output_norm="cls.predictions.transform.LayerNorm",
            has_dense=True,
            chain=("cls",),
            unused_bias="cls.predictions.bias",
        ),
        Head.SEQUENCE_LABEL: FamilyHead(
            model_class="BertForSequenceClassification",
            counts=ROBERTA.head(Head.SEQUENCE_LABEL).counts,
            output="classifier",
            output_norm=None,
            has_dense=True,
        ),
    },
)
