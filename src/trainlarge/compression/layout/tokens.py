"""Facts about the tokens of a text, from which a vocabulary is cut, and token numbers in the smaller vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainlarge.compression.layout.shapes import Tokens


@dataclass(frozen=True, eq=False)
class TokenFacts:
    """How often tokens occur, and which of them mean something special."""

    counts: Tensor
    """int64 [entries of the vocabulary]: how often each token occurs in the training split."""

    special: frozenset[int]
    """Numbers of the special tokens, which always stay."""

    unknown: int
    """Number of the special token that replaces removed ones: the unknown token, where the tokenizer has one."""


def renumbered(ids: Tensor, tokens: Tokens | None) -> Tensor:
    """Numbers of the checkpoint's tokens, any shape, as those of the vocabulary that is left; negative ones stay."""
    if tokens is None:
        return ids
    places = torch.full((tokens.size,), tokens.kept.index(tokens.unknown), dtype=ids.dtype)
    places[list(tokens.kept)] = torch.arange(len(tokens.kept), dtype=ids.dtype)
    places = places.to(ids.device)
    return torch.where(ids < 0, ids, places[ids.clamp(min=0)])


def renumbered_batch(
    batch: Mapping[str, Tensor], tokens: Tokens | None, predicts_tokens: bool | None = None
) -> dict[str, Tensor]:
    """A batch of inputs by name, with labels or without, in the vocabulary that is left.

    Args:
        batch: its tensors, rows first.
        tokens: the vocabulary that is left; None: all of it.
        predicts_tokens: whether labels are tokens; None: they are where a row has several. Other labels are classes,
            and stay.
    """
    if predicts_tokens is None:
        predicts_tokens = "labels" in batch and batch["labels"][:1].numel() > 1
    keys = {"", "input_ids", "labels"} if predicts_tokens else {"", "input_ids"}
    return {key: renumbered(tensor, tokens) if key in keys else tensor for key, tensor in batch.items()}


def removed_share(ids: Tensor, tokens: Tokens | None) -> float:
    """Share of the tokens of a text that were removed, and so are replaced by the unknown token."""
    if tokens is None:
        return 0.0
    is_kept = torch.zeros(tokens.size, dtype=torch.bool)
    is_kept[list(tokens.kept)] = True
    return float((~is_kept[ids]).double().mean())
