"""Masked language modelling (Devlin et al. 2019, section 3.1), drawn anew for every batch (Liu et al. 2019)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainlarge.data.masked_count import masked_count

__all__ = ["MaskedBatch", "mask_tokens", "masked_count"]

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1
"""The rest, 10 %, stay as they are."""


class MaskedBatch(NamedTuple):
    """Rows with some positions hidden, and what stood there."""

    inputs: Tensor
    """Ids that the model sees, shape [rows, sequence_length] int64."""
    positions: Tensor
    """Positions to predict, ascending in each row, shape [rows, count] int64."""
    labels: Tensor
    """Ids that stood there, shape [rows, count] int64."""


def mask_tokens(
    ids: Tensor, count: int, generator: torch.Generator, *, mask_id: int, vocab_size: int, first_regular_id: int
) -> MaskedBatch:
    """Choose ``count`` positions of each row uniformly without replacement and hide them.

    Of the chosen ids 80 % become ``[MASK]``, 10 % a uniform regular token and 10 % stay, each independently. The count
    is fixed, so shapes are static; BERT's own draw has that count on average. ``[SEP]`` may be chosen like any other
    token: leaving it out would raise the rate of the other tokens in rows that hold one, and where a document ends is
    worth predicting. All work happens on the device of ``ids``, on which ``generator`` must be.

    Args:
        ids: rows to mask, shape [rows, sequence_length] int64; not changed.
        count: positions per row, at most the sequence length.
        generator: source of randomness; the result is a function of its state.
        mask_id: id of ``[MASK]``.
        vocab_size: ids are below it.
        first_regular_id: lowest id that may be put in place of a token.
    """
    rows, length = ids.shape
    scores = torch.rand(rows, length, generator=generator, device=ids.device)
    positions = scores.topk(count, dim=1, sorted=False).indices.sort(dim=1).values
    labels = ids.gather(1, positions)
    fate = torch.rand(rows, count, generator=generator, device=ids.device)
    regular = torch.randint(first_regular_id, vocab_size, (rows, count), generator=generator, device=ids.device)
    shown = torch.where(fate < MASK_SHARE + RANDOM_SHARE, regular, labels).masked_fill(fate < MASK_SHARE, mask_id)
    return MaskedBatch(ids.scatter(1, positions, shown), positions, labels)
