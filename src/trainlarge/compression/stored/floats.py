"""Floats of any data type: their bits, and rounding to a type without leaving its range."""

from __future__ import annotations

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a value -> the integer type of as many bytes."""


def bit_patterns(tensor: Tensor) -> Tensor:
    """Integers with the bits of the values, of the same shape: -0.0 and NaN are what they are, and only +0.0 is 0."""
    return tensor.view(_INTEGERS[tensor.element_size()])


def representable(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in a floating data type; those beyond its range become its largest or smallest finite value.

    What is computed in float32 may be larger than any float16, and is still a weight that can be evaluated.
    """
    largest = min(torch.finfo(dtype).max, torch.finfo(values.dtype).max)
    return values.clamp(-largest, largest).to(dtype)
