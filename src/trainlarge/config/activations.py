"""Methods of activation quantization: how the inputs of linear layers are quantized while the model computes.

They change no weight. The compressed model quantizes as it computes, x' = scale * (code - zero_point) with whole-number
codes; so do evaluation and the model that a packed file gives back. Inputs are quantized in the linear layers whose
weights are quantized, because only there can a product be one of whole numbers; in a recipe that quantizes no weights,
in every linear layer. Everything else (embedding, attention scores, norms) computes in full precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trainlarge.config.method import BITS_IN_CONFIGURATION, Method, method, normalize


@dataclass(frozen=True)
class ActivationQuantization(Method):
    """What the methods share: inputs are rounded to 2^bits equally spaced values, by the formulas of ``Uniform``."""

    while_training: ClassVar[bool] = True
    disabled_by: ClassVar[Mapping[str, float]] = {"bits": 32}
    enabled_by: ClassVar[Mapping[str, float]] = {"bits": 8}

    bits: int = 8
    """Bits per code, 2 to 8; 32 in a configuration disables the method."""

    symmetric: bool = True
    """Symmetric: scale = max |x| / (2^(bits-1) - 1), zero_point = 0. Asymmetric: scale = (max - min) / (2^bits - 1),
    zero_point = round(-min / scale), with the range widened to hold 0, which stays exactly 0."""

    def __post_init__(self) -> None:
        self.require_whole("bits", 2, 8, BITS_IN_CONFIGURATION)
        self.require("symmetric", isinstance(self.symmetric, bool), "true or false")
        normalize(self, bits=int(self.bits))

    def summary(self) -> str:
        """Such as ``8 bit inputs dynamic``."""
        return f"{self.bits} bit inputs {self.name}" + ("" if self.symmetric else " asymmetric")


@method("activations", "dynamic")
@dataclass(frozen=True)
class Dynamic(ActivationQuantization):
    """One range per token, taken from the token's own vector: no calibration, and no token affects another.

    Source: symmetric with one range per token, ZeroQuant (Yao et al. 2022, arXiv 2206.01861) and XTC (Wu et al. 2022,
    arXiv 2206.01859); asymmetric min/max, TernaryBERT (Zhang et al. 2020, arXiv 2009.12812).
    """


@method("activations", "static")
@dataclass(frozen=True)
class Static(ActivationQuantization):
    """One fixed range per layer, measured on calibration data.

    It reaches from the smallest to the largest input [tokens, in] of that layer in the model without activation
    quantization. Values beyond it are clamped. A training that is aware of it (``recover.quantize_aware``) has the
    ranges of the model at its start, and they stay those of the trained one.

    Source: fixed ranges, Jacob et al. 2018 (arXiv 1712.05877), section 3; for BERT Q8BERT (Zafrir et al. 2019, arXiv
    1910.06188), which is symmetric. Both track the ranges during training by a moving average; here they are those of
    all calibration rows.
    """

    calibrated: ClassVar[bool] = True

    calibration_rows: int = 128
    """How many rows of the training data, each of the sequence length, are used; of data passed by hand the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_whole("calibration_rows", 1)
