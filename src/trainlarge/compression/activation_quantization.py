"""Which layers of a compressed model quantize their inputs, and how: the slot ``activations`` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from trainlarge.compression.registry import Shared, rounds
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.compression.weights import Weights
from trainlarge.config.activations import ActivationQuantization, Dynamic, Static
from trainlarge.config.method import Method
from trainlarge.models.fake_quantize import FakeQuantizer, PerTensor, PerToken

Range = tuple[float, float]
"""Smallest and largest value."""

Ranges = Mapping[str, Range | None]
"""Name of a linear layer that quantizes its inputs -> their fixed range; None where each token has its own."""


@rounds(Dynamic, Static)
def input_ranges(
    method: ActivationQuantization, weights: Weights, stored: Mapping[str, StoredTensor], shared: Shared
) -> Ranges:
    """The layers that quantize their inputs: those with quantized weights, or all where no weights are quantized.

    A layer that no calibration row reaches has no static range: its inputs are not quantized.
    Raises UserError where static ranges are asked for and there is no calibration data.
    """
    layers = _layers(weights, stored)
    if not isinstance(method, Static):
        return dict.fromkeys(layers)
    ranges = shared.calibrated(method).ranges(method.calibration_rows)
    return {name: ranges[name] for name in layers if name in ranges}


def quantizers_of(method: Method | None, ranges: Ranges) -> dict[str, FakeQuantizer]:
    """Name of a layer -> how its inputs are quantized; empty without a method."""
    if not isinstance(method, ActivationQuantization):
        return {}
    return {name: _quantizer(method, range_) for name, range_ in ranges.items()}


def _quantizer(method: ActivationQuantization, range_: Range | None) -> FakeQuantizer:
    if range_ is None:
        return PerToken(method.bits, method.symmetric)
    return PerTensor(method.bits, method.symmetric, *range_)


def _layers(weights: Weights, stored: Mapping[str, StoredTensor]) -> list[str]:
    """Names of the linear layers, those that share a weight too."""
    is_quantized = {name: not isinstance(tensor, Dense) for name, tensor in stored.items()}
    takes_all = not any(is_quantized.values())
    return [layer for layer, weight in weights.weight_names(nn.Linear).items() if takes_all or is_quantized[weight]]
