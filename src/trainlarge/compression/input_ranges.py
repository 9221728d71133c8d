"""Fixed ranges of the inputs of quantized layers, and the quantizers that they make: the slot ``activations``."""

from __future__ import annotations

from collections.abc import Mapping

from trainlarge.config.activations import ActivationQuantization
from trainlarge.config.method import Method
from trainlarge.models.fake_quantize import FakeQuantizer, PerTensor, PerToken

Range = tuple[float, float]
"""Smallest and largest value."""

Ranges = Mapping[str, Range | None]
"""Name of a linear layer that quantizes its inputs -> their fixed range; None where each token has its own."""


def quantizers_of(method: Method | None, ranges: Ranges) -> dict[str, FakeQuantizer]:
    """Name of a layer -> how its inputs are quantized; empty without a method."""
    if not isinstance(method, ActivationQuantization):
        return {}
    bits, symmetric = method.bits, method.symmetric
    return {
        name: PerToken(bits, symmetric) if range_ is None else PerTensor(bits, symmetric, *range_)
        for name, range_ in ranges.items()
    }
