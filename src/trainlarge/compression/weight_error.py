"""How far compression moved the weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def relative_squared_error(weights: Mapping[str, Tensor], compressed: Mapping[str, Tensor]) -> dict[str, float]:
    """sum (w' - w)^2 / sum w^2 of each tensor, summed in float64; 0 for a tensor without weight.

    Reference values for normal weights: uniform quantization step^2 / 12 / variance; magnitude pruning
    erf(t / sqrt 2) - 2 t phi(t) with t = Phi^-1((1 + sparsity) / 2).
    """
    return {name: _error(weights[name], compressed[name]) for name in weights if weights[name].is_floating_point()}


def _error(before: Tensor, after: Tensor) -> float:
    before, after = before.double(), after.double()
    total = float(before.square().sum())
    return float((after - before).square().sum()) / total if total else 0.0
