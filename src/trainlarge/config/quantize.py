"""Methods of quantization: how the weights that are left are rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from trainlarge.config.method import Method, is_integer, method


@method("quantize", "uniform")
@dataclass(frozen=True)
class Uniform(Method):
    """Round weights to 2^bits equally spaced values, without retraining.

    Asymmetric: step = (max - min) / (2^bits - 1), zero = round(-min / step), code = clamp(round(w / step) + zero,
    0, 2^bits - 1), w' = step * (code - zero), with the range [min, max] widened to hold 0. This is the uniform
    quantization of Li et al. 2020 (arXiv 2002.11794) in its affine form (GPTQ, arXiv 2210.17323), whose whole-number
    zero point keeps a pruned weight exactly 0.
    Symmetric: step = max |w| / (2^(bits-1) - 1), w' = step * round(w / step).
    """

    off: ClassVar[Mapping[str, float]] = {"bits": 32}

    bits: int
    """Bits of a code, 2 to 8; a configuration's 32 is no quantization."""

    granularity: Literal["tensor", "row"] = "row"
    """What shares one step and one zero point: the whole matrix, or one row (first dimension)."""

    symmetric: bool = False
    """Whether the range is symmetric around 0, which leaves one of the 2^bits values unused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = "a whole number from 2 to 8, or 32 in a configuration"
        self.require("bits", is_integer(self.bits) and 2 <= self.bits <= 8, allowed)
        self.require("granularity", self.granularity in ("tensor", "row"), "one of tensor, row")
        self.require("symmetric", isinstance(self.symmetric, bool), "true or false")
        object.__setattr__(self, "bits", int(self.bits))

    def summary(self) -> str:
        """Such as ``4 bit row``."""
        return f"{self.bits} bit {self.granularity}" + (" symmetric" if self.symmetric else "")
