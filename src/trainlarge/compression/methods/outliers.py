"""Uniform quantization that keeps the weights of largest magnitude in full."""

from __future__ import annotations

from torch import Tensor

from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.ranking import smallest
from trainlarge.compression.registry import applies_to_each
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.quantize import Outliers


@applies_to_each(Outliers)
def split(tensor: Tensor, method: Outliers) -> StoredTensor:
    """The rounded weights of a matrix, and its outliers: round(share * n) of its n weights, kept in full."""
    kept = round(method.share * tensor.numel())
    if kept == 0:
        return quantize(tensor, method)
    rounded = smallest(tensor.double().abs().view(1, -1), tensor.numel() - kept).view(tensor.shape)
    return DensePlusSparse(quantize(tensor.masked_fill(~rounded, 0.0), method), Dense.pruned(tensor, rounded))
