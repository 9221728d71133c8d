"""Activation quantization: which layers of a compressed model quantize their inputs, and in which range."""

from __future__ import annotations

from torch import nn

from trainlarge.compression.input_ranges import Ranges
from trainlarge.compression.registry import Shared, StoredTensors, rounds
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.weights import Weights
from trainlarge.config.activations import ActivationQuantization, Dynamic, Static


@rounds(Dynamic, Static)
def input_ranges(method: ActivationQuantization, weights: Weights, stored: StoredTensors, shared: Shared) -> Ranges:
    """The layers that quantize their inputs: those with quantized weights, or all where no weights are quantized.

    None of a head that is left whole. A layer that no calibration row reaches has no static range: its inputs are not
    quantized.
    Raises UserError where static ranges are asked for and there is no calibration data.
    """
    is_quantized = {name: not isinstance(tensor, Dense) for name, tensor in stored.items()}
    takes_all = not any(is_quantized.values())
    linears = weights.weight_names(nn.Linear)
    in_scope = {layer: weight for layer, weight in linears.items() if not weights.is_left_alone(layer)}
    layers = [layer for layer, weight in in_scope.items() if takes_all or is_quantized[weight]]
    if not isinstance(method, Static):
        return dict.fromkeys(layers)
    ranges = shared.calibrated(method).ranges(method.calibration_rows)
    return {name: ranges[name] for name in layers if name in ranges}
