"""Pruning by weights and activations."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trainlarge.compression.ranking import zero_in_rows
from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.prune import Wanda


@applies(Wanda)
def wanda(method: Wanda, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, StoredTensor]:
    """Zero the weights of smallest |W_ij| * ||X_j|| in each row, or in each block of a row."""
    squares = shared.calibrated(method).mean_squares(method.calibration_rows)
    stored: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        # In float64: a score that vanishes in float32 would be ranked by position.
        scores = tensor.double().abs().reshape(len(tensor), -1)
        if name in squares:
            scores.mul_(squares[name].sqrt())
        stored[name] = zero_in_rows(name, tensor, scores, method.sparsity, method.m)
    return stored
