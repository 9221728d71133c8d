"""Methods of quantizing activations: how the inputs of linear layers are rounded while the model computes.

They change no weight: the compressed model rounds as it computes, x' = step * (code - zero) with whole-number codes,
and so do evaluation and the model that a packed file gives back. Rounded are the inputs of the linear layers whose
weights are held as codes, since only there can a product be one of whole numbers; in a recipe that quantizes no weights
those of every linear layer. What is no linear layer (embedding, attention scores, norms) computes in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trainlarge.config.method import Part, is_integer, method


@dataclass(frozen=True)
class ActivationQuantization(Part):
    """What methods share that round inputs to 2^bits equally spaced values, by the formulas of ``Uniform``."""

    off: ClassVar[Mapping[str, float]] = {"bits": 32}

    bits: int = 8
    """Bits of a code, 2 to 8; a configuration's 32 is no rounding."""

    symmetric: bool = True
    """Symmetric: step = max |x| / (2^(bits-1) - 1), zero = 0. Asymmetric: step = (max - min) / (2^bits - 1), zero =
    round(-min / step), with the range widened to hold 0, which stays exactly 0."""

    def __post_init__(self) -> None:
        allowed = "a whole number from 2 to 8, or 32 in a configuration"
        self.require("bits", is_integer(self.bits) and 2 <= self.bits <= 8, allowed)
        self.require("symmetric", isinstance(self.symmetric, bool), "true or false")
        object.__setattr__(self, "bits", int(self.bits))

    def summary(self) -> str:
        """Such as ``8 bit inputs dynamic``."""
        return f"{self.bits} bit inputs {self.name}" + ("" if self.symmetric else " asymmetric")


@method("activations", "dynamic")
@dataclass(frozen=True)
class Dynamic(ActivationQuantization):
    """Each token's vector has a range of its own, taken from itself: no calibration, and no token suffers from another.

    Source: symmetric with one range a token, ZeroQuant (Yao et al. 2022, arXiv 2206.01861) and XTC (Wu et al. 2022,
    arXiv 2206.01859); asymmetric min/max, TernaryBERT (Zhang et al. 2020, arXiv 2009.12812).
    """


@method("activations", "static")
@dataclass(frozen=True)
class Static(ActivationQuantization):
    """One range for each layer's inputs [tokens, in], fixed before: from the smallest to the largest value that the
    layer of the unrounded model takes in on calibration data. What lies beyond is clamped.

    Source: fixed ranges, Jacob et al. 2018 (arXiv 1712.05877), section 3; for BERT Q8BERT (Zafrir et al. 2019, arXiv
    1910.06188), which is symmetric. Both follow the ranges through training by a moving average; here nothing trains,
    and they are those of all calibration rows.
    """

    calibrated: ClassVar[bool] = True

    calibration_rows: int = 128
    """Rows of the training data, each of the sequence length, that are looked at; of data given by hand the first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fine = is_integer(self.calibration_rows) and self.calibration_rows > 0
        self.require("calibration_rows", fine, "a whole number from 1")
