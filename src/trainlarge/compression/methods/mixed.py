"""Uniform quantization with as many bits for each matrix as it needs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainlarge.compression.forms import Form
from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.registry import Shared, applies
from trainlarge.config.quantize import Mixed

FEWEST, MOST = 2, 8

Sensitivity = dict[str, list[float]]
"""Name of a matrix -> relative error of its output at 2, 3, ... 8 bits."""


@applies(Mixed)
def mixed(method: Mixed, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, Form]:
    """Measure each matrix at every number of bits, share out the bits, round."""
    hessians = shared.calibrated(method).hessians(method.calibration_rows)
    sensitivity = shared.once(method.without("bits"), lambda: _sensitivity(method, tensors, hessians))
    bits = share_out(method.bits, sensitivity, {name: tensor.numel() for name, tensor in tensors.items()})
    return {name: quantize(tensor, method.uniform(bits[name])) for name, tensor in tensors.items()}


def share_out(average: float, sensitivity: Sensitivity, weights: Mapping[str, int]) -> dict[str, int]:
    """Bits of each matrix, such that the average over all ``weights`` is at most ``average``.

    Greedy, from the fewest bits and from equal ones: no worse than equal bits, whatever the sizes of the matrices.
    """
    found = [_filled(start, average, sensitivity, weights) for start in (FEWEST, int(average))]
    return min(found, key=lambda bits: sum(sensitivity[name][bits[name] - FEWEST] for name in bits))


def _filled(start: int, average: float, sensitivity: Sensitivity, weights: Mapping[str, int]) -> dict[str, int]:
    """The bit that lowers the sum of errors most for its bytes is given next, until none fits any more."""
    bits = dict.fromkeys(weights, start)
    left = (average - start) * sum(weights.values())
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


def _gain(errors: list[float], bits: int) -> float:
    return errors[bits - FEWEST] - errors[bits - FEWEST + 1]


def _squared_output(matrix: Tensor, hessian: Tensor | None) -> float:
    product = matrix if hessian is None else matrix @ hessian
    return float((product * matrix).sum(dtype=torch.float64))
