"""Which layers of a compressed model round their inputs, and how: the slot ``activations`` of a recipe."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from trainlarge.compression.registry import Shared, rounds
from trainlarge.compression.stored.forms import Form, Plain
from trainlarge.compression.weights import Weights
from trainlarge.config.activations import Dynamic, Rounded, Static
from trainlarge.config.method import Part
from trainlarge.models.input_rounding import InputRounding, PerTensor, PerToken

Range = tuple[float, float]

Ranges = Mapping[str, Range | None]
"""Name of a linear layer that rounds its inputs -> their fixed range; None where each token has its own."""


@rounds(Dynamic, Static)
def input_ranges(method: Rounded, weights: Weights, forms: Mapping[str, Form], shared: Shared) -> Ranges:
    """The layers that round their inputs: those with weights held as codes, or every one where no weights are.

    A layer that no calibration row reaches has no static range: it rounds nothing.
    Raises UserError where static ranges are asked for and there is no calibration data.
    """
    layers = _layers(weights, forms)
    if not isinstance(method, Static):
        return dict.fromkeys(layers)
    found = shared.calibrated(method).ranges(method.calibration_rows)
    return {name: found[name] for name in layers if name in found}


def roundings(method: Part | None, ranges: Ranges) -> dict[str, InputRounding]:
    """Name of a layer -> how its inputs are rounded; none without a method."""
    if not isinstance(method, Rounded):
        return {}
    return {name: _rounding(method, range_) for name, range_ in ranges.items()}


def _rounding(method: Rounded, range_: Range | None) -> InputRounding:
    if range_ is None:
        return PerToken(method.bits, method.symmetric)
    return PerTensor(method.bits, method.symmetric, *range_)


def _layers(weights: Weights, forms: Mapping[str, Form]) -> list[str]:
    """Names of the linear layers, those that share a weight too."""
    every = all(isinstance(form, Plain) for form in forms.values())
    names = weights.weight_names(nn.Linear)
    return [layer for layer, weight in names.items() if every or not isinstance(forms[weight], Plain)]
