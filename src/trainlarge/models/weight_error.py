"""How much compression changed the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_PIECE = 1 << 18
"""Weights that are widened to float64 at a time: these stay in the processor's cache."""


@dataclass(frozen=True)
class WeightError:
    """How much one tensor was changed, summed in float64: what figure 9 of Li et al. 2020 (arXiv 2002.11794) shows."""

    weights: int
    """Weights n of the tensor."""

    mean_absolute_change: float
    """mean |w' - w|."""

    spread: float
    """Standard deviation of |w' - w| over the weights."""

    squared_norm: float
    """sum w^2."""

    relative_squared_error: float
    """sum (w' - w)^2 / sum w^2; 0 for a tensor without weight."""

    @classmethod
    def between(cls, before: Tensor, after: Tensor) -> WeightError:
        """The error between two tensors of the same shape, of any data types."""
        sums = zip(*_sums(before.reshape(-1), after.reshape(-1)), strict=True)
        change, moved, norm = map(math.fsum, sums)
        count = max(before.numel(), 1)
        mean = change / count
        return cls(
            weights=before.numel(),
            mean_absolute_change=mean,
            spread=math.sqrt(max(moved / count - mean**2, 0.0)),
            squared_norm=norm,
            relative_squared_error=moved / norm if norm else 0.0,
        )


def _sums(before: Tensor, after: Tensor) -> Iterator[tuple[float, float, float]]:
    """Of each piece of two tensors [n]: the sums of |w' - w|, of (w' - w)^2 and of w^2."""
    for one, other in zip(torch.split(before, _PIECE), torch.split(after, _PIECE), strict=True):
        wide = one.double()
        change = other.double().sub_(wide).abs_()
        yield float(change.sum()), float(torch.dot(change, change)), float(torch.dot(wide, wide))


def weight_errors(
    weights: Mapping[str, Tensor], compressed: Mapping[str, Tensor], names: Iterable[str]
) -> dict[str, WeightError]:
    """The errors of the tensors ``names``, without those that are missing or have another shape in ``compressed``."""
    return {
        name: WeightError.between(weights[name], compressed[name])
        for name in names
        if name in compressed and compressed[name].shape == weights[name].shape
    }


def total_relative_squared_error(errors: Iterable[WeightError]) -> float:
    """sum (w' - w)^2 / sum w^2 over all weights of several tensors; 0 where there is no weight."""
    of_tensors = list(errors)
    norm = sum(error.squared_norm for error in of_tensors)
    return sum(error.relative_squared_error * error.squared_norm for error in of_tensors) / norm if norm else 0.0


def relative_squared_error(weights: Mapping[str, Tensor], compressed: Mapping[str, Tensor]) -> dict[str, float]:
    """sum (w' - w)^2 / sum w^2 of each floating tensor.

    Reference values for normal weights: uniform quantization step^2 / 12 / variance; magnitude pruning
    erf(t / sqrt 2) - 2 t phi(t) with t = Phi^-1((1 + sparsity) / 2).
    """
    floating = [name for name in weights if weights[name].is_floating_point()]
    return {name: error.relative_squared_error for name, error in weight_errors(weights, compressed, floating).items()}
