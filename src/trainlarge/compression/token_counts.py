"""What the training split says of the tokens of a vocabulary."""

from __future__ import annotations

import numpy as np
import torch

from trainlarge.compression.structure.tokens import TokenFacts
from trainlarge.data.prepare import PreparedData

CHUNK = 1 << 24
"""Tokens that are counted at a time."""


def token_facts(prepared: PreparedData) -> TokenFacts:
    """How often each token occurs in the training split."""
    counts = sum(
        np.bincount(prepared.train[start : start + CHUNK], minlength=prepared.vocab_size)
        for start in range(0, len(prepared.train), CHUNK)
    )
    return TokenFacts(torch.from_numpy(np.asarray(counts)), prepared.special_ids, prepared.unknown_id)
