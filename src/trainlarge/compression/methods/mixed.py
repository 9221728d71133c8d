"""Uniform quantization with a number of bits per matrix, chosen by measured sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainlarge.compression.divergence import measuring_divergence
from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.registry import Shared, applies
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.quantize import Mixed

FEWEST, MOST = 2, 8

Sensitivity = Mapping[str, Sequence[float]]
"""Name of a matrix -> error at 2, 3, ... 8 bits."""


@applies(Mixed)
def mixed(method: Mixed, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, StoredTensor]:
    """Measure the error of each matrix at each number of bits, share out the bits, quantize."""
    share = _by_model if method.sensitivity == "model" else _by_layer
    bits = share(method, tensors, shared)
    return {name: quantize(tensor, method.uniform(bits[name])) for name, tensor in tensors.items()}


def share_out(
    average: float, sensitivity: Sensitivity, weights: Mapping[str, int], from_most: bool = False
) -> dict[str, int]:
    """Bits of each matrix, such that the average over all ``weights`` is at most ``average``.

    Greedy from two starts, the fewest bits and equal bits (with ``from_most`` also from the most bits). The best of
    the results is never worse than equal bits.
    """
    starts = [dict.fromkeys(weights, start) for start in (FEWEST, int(average))]
    starts += [_trimmed(average, sensitivity, weights)] if from_most else []
    candidates = [_filled(start, average, sensitivity, weights) for start in starts]
    return min(candidates, key=lambda bits: sum(sensitivity[name][bits[name] - FEWEST] for name in bits))


def _by_layer(method: Mixed, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, int]:
    hessians = shared.calibrated(method).hessians(method.calibration_rows)
    sensitivity = shared.once(method.without("bits"), lambda: _sensitivity(method, tensors, hessians))
    return share_out(method.bits, sensitivity, _counts(tensors))


def _by_model(method: Mixed, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, int]:
    known: dict[tuple[str, int], float] = shared.once(method.without("bits"), dict)
    with measuring_divergence(shared.calibrated(method), method.calibration_rows, tensors) as divergence:

        def error(name: str, bits: int) -> float:
            return divergence(name, quantize(tensors[name], method.uniform(bits)).dense())

        sensitivity = {name: _Errors(name, error, known) for name in tensors}
        return share_out(method.bits, sensitivity, _counts(tensors), from_most=True)


@dataclass(frozen=True)
class _Errors(Sequence[float]):
    """The errors of a matrix, each measured on first use."""

    name: str
    measure: Callable[[str, int], float]
    known: dict[tuple[str, int], float]

    def __getitem__(self, place: int) -> float:  # type: ignore[override]
        key = (self.name, place + FEWEST)
        if key not in self.known:
            self.known[key] = self.measure(*key)
        return self.known[key]

    def __len__(self) -> int:
        return MOST - FEWEST + 1


def _counts(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: tensor.numel() for name, tensor in tensors.items()}


def _trimmed(average: float, sensitivity: Sensitivity, weights: Mapping[str, int]) -> dict[str, int]:
    """From the most bits, take away the bit that raises the error least per byte, until the average is kept."""
    bits = dict.fromkeys(weights, MOST)
    while sum(bits[name] * count for name, count in weights.items()) > average * sum(weights.values()):
        name = min(
            (name for name in weights if bits[name] > FEWEST),
            key=lambda name: _gain(sensitivity[name], bits[name] - 1) / weights[name],
        )
        bits[name] -= 1
    return bits


def _filled(
    bits: dict[str, int], average: float, sensitivity: Sensitivity, weights: Mapping[str, int]
) -> dict[str, int]:
    """Add the bit that lowers the error most per byte, until none fits any more."""
    left = average * sum(weights.values()) - sum(bits[name] * count for name, count in weights.items())
    while fitting := [name for name in weights if bits[name] < MOST and weights[name] <= left]:
        name = max(fitting, key=lambda name: _gain(sensitivity[name], bits[name]) / weights[name])
        bits[name] += 1
        left -= weights[name]
    return bits


def output_error(before: Tensor, after: Tensor, hessian: Tensor | None) -> float:
    """tr(D H D^T) / tr(W H W^T) with D = W' - W, of matrices [out, in]; 0 where the output is 0."""
    before, after = (tensor.float().reshape(len(tensor), -1) for tensor in (before, after))
    size = _squared_output(before, hessian)
    return _squared_output(after - before, hessian) / size if size else 0.0


def _sensitivity(method: Mixed, tensors: Mapping[str, Tensor], hessians: Mapping[str, Tensor]) -> Sensitivity:
    return {
        name: [
            output_error(tensor, quantize(tensor, method.uniform(bits)).dense(), hessians.get(name))
            for bits in range(FEWEST, MOST + 1)
        ]
        for name, tensor in tensors.items()
    }


def _gain(errors: Sequence[float], bits: int) -> float:
    return errors[bits - FEWEST] - errors[bits - FEWEST + 1]


def _squared_output(matrix: Tensor, hessian: Tensor | None) -> float:
    product = matrix if hessian is None else matrix @ hessian
    return float((product * matrix).sum(dtype=torch.float64))
