"""What the training split says of the tokens of a vocabulary."""

from __future__ import annotations

import torch

from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.data.documents import token_counts
from trainlarge.data.prepare import PreparedData


def token_facts(prepared: PreparedData) -> TokenFacts:
    """How often each token occurs in the training split."""
    return TokenFacts(torch.from_numpy(token_counts(prepared)), prepared.special_ids, prepared.unknown_id)
