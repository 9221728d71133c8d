"""Random pruning."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from trainlarge.compression.ranking import smallest
from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.prune import Random


@applies(Random)
def random(method: Random, tensors: Mapping[str, Tensor], _shared: Shared) -> dict[str, StoredTensor]:
    """Zero round(sparsity * n) random weights of each matrix; one stream of numbers runs through them in order."""
    # Not the seed itself: weights that were drawn from it would decide which of them are pruned.
    digest = hashlib.sha256(f"random pruning {method.seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    stored: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        scores = torch.rand((1, tensor.numel()), generator=generator)
        stored[name] = Dense.pruned(tensor, smallest(scores, round(method.sparsity * tensor.numel())))
    return stored
