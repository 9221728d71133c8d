"""Floating-point operations (FLOPs) of a shape by formula: 2 for each multiply-add of a matrix product, no others."""

from __future__ import annotations

from trainlarge.models.family import Head
from trainlarge.models.shape import Shape


def forward_flops(shape: Shape, sequence_length: int, predictions_per_row: int, head: Head | None = None) -> int:
    """FLOPs of the forward pass over one row of tokens.

    Counts the linear layers, attention scores and weighted sums over the full row, and the prediction head and output
    layer at the tokens of predictions only. Look-ups, norms, activations and softmax are left out, as in Kaplan et al.
    2020 (section 2.1), whose count leaves the output layer out too. A causal model computes and counts all scores.
    Those of an architecture that is no family are measured (:mod:`trainlarge.models.measured`).

    Args:
        shape: the model.
        sequence_length: tokens of the row.
        predictions_per_row: tokens at which the head is applied; 1 where it labels the row.
        head: what the model predicts; None: what its family is pretrained with.

    Raises:
        UserError: on ``arch.name``, when the family has no such head.
    """
    kind = head or shape.family.pretraining_head
    predicts = shape.family.head(kind)
    if predicts.flops is not None:
        return predicts.flops(shape, sequence_length)
    body = shape.depth * (_linear_flops(shape) * sequence_length + _attention_flops(shape, sequence_length))
    outputs = shape.labels if kind is Head.SEQUENCE_LABEL else shape.vocab_size
    prediction = 2 * shape.width * ((shape.width if predicts.has_dense else 0) + outputs)
    return body + (sequence_length if predicts.is_everywhere else predictions_per_row) * prediction


def training_flops(shape: Shape, sequence_length: int, predictions_per_row: int, head: Head | None = None) -> int:
    """FLOPs of forward and backward over one row: 3 times the forward pass.

    Each product C = A B has two products in its backward pass, dA = dC B' and dB = A' dC, and both are needed
    everywhere: the first layer's input is the token embedding, which is trained. So backward is exactly twice forward
    (Kaplan et al. 2020, section 2.1), without what a fused attention kernel computes a second time in its backward.
    """
    return 3 * forward_flops(shape, sequence_length, predictions_per_row, head)


def executed_training_flops(
    shape: Shape, sequence_length: int, predictions_per_row: int, forward: str, head: Head | None = None
) -> int:
    """FLOPs of forward and backward over one row that a forward pass really computes.

    ``library`` computes all of the architecture's; ``fast`` 0.3 to 0.6 of them in one layer, 0.65 to 0.7 in two, 0.94
    in twelve.

    ``fast`` leaves :func:`skipped_flops` out of each of the three products. What checkpointing or a fused attention
    kernel computes a second time is in neither count.

    Args:
        shape, sequence_length, predictions_per_row, head: as for :func:`forward_flops`.
        forward: ``fast`` (where the head has such a pass) or ``library``.
    """
    is_fast = forward == "fast" and shape.family.head(head).fast is not None
    skipped = skipped_flops(shape, sequence_length, predictions_per_row) if is_fast else 0
    return training_flops(shape, sequence_length, predictions_per_row, head) - 3 * skipped


def skipped_flops(shape: Shape, sequence_length: int, predictions_per_row: int) -> int:
    """The part of :func:`forward_flops` that a fast forward pass leaves out (:mod:`trainlarge.models.fast`).

    What the last layer gives at the other tokens reaches no prediction, so only its keys and values are computed
    there. The clocks and budgets count it all the same: ``flops`` are those of the architecture, whichever way it is
    computed, and ``executed_flops`` those that were computed.
    """
    keys_and_values = 2 * 2 * shape.width**2
    token = _linear_flops(shape) - keys_and_values + _attention_flops(shape, sequence_length) // sequence_length
    return (sequence_length - predictions_per_row) * token


def _linear_flops(shape: Shape) -> int:
    """FLOPs of one layer's linear layers for one token: query, key, value, output and the feed-forward block."""
    return 2 * (4 * shape.width**2 + shape.family.ffn_matrices * shape.width * shape.ffn_width)


def _attention_flops(shape: Shape, sequence_length: int) -> int:
    """FLOPs of one layer's scores and weighted sums over a row; the number of heads does not matter."""
    return 2 * 2 * sequence_length**2 * shape.width
