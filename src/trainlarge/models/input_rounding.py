"""Linear layers that round what they take in, as integer arithmetic would: x' = step * (code - zero).

Codes and zero points are whole numbers up to 255, which float32 holds exactly: a product of rounded inputs with rounded
weights is that of their integers, times both steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_HOOKS = "input_rounding_hooks"
"""Attribute of a model that holds the handles of its hooks; deep copies of the model round, too."""


class InputRounding(Protocol):
    """How the inputs of one layer are rounded."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """The rounded inputs [..., in], of the same data type."""


@dataclass(frozen=True)
class PerToken:
    """One range for each vector [in] of inputs [..., in], its own smallest and largest value."""

    bits: int
    symmetric: bool

    def __call__(self, inputs: Tensor) -> Tensor:
        values = inputs.float()
        # torch.aminmax takes several times as long as both.
        lowest, highest = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
        return _rounded(values, lowest, highest, self.bits, self.symmetric).to(inputs.dtype)


@dataclass(frozen=True)
class PerTensor:
    """One fixed range [lowest, highest]; values beyond it are clamped."""

    bits: int
    symmetric: bool
    lowest: float
    highest: float

    def __call__(self, inputs: Tensor) -> Tensor:
        values = inputs.float()
        lowest, highest = values.new_tensor(self.lowest), values.new_tensor(self.highest)
        return _rounded(values, lowest, highest, self.bits, self.symmetric).to(inputs.dtype)


def round_inputs(model: nn.Module, roundings: Mapping[str, InputRounding]) -> None:
    """Make layers of ``model`` round what they take in; what it rounded before it rounds no more.

    Args:
        model: its modules stay the same and its weights as they are, so that it is saved as any other.
        roundings: name of a module -> how its first argument is rounded. None at all: nothing is rounded.
    """
    for handle in getattr(model, _HOOKS, ()):
        handle.remove()
    handles = [model.get_submodule(name).register_forward_pre_hook(_hook(how)) for name, how in roundings.items()]
    setattr(model, _HOOKS, handles)


def rounds_inputs(model: nn.Module) -> bool:
    """Whether ``round_inputs`` gave the model something to round."""
    return bool(getattr(model, _HOOKS, ()))


@contextmanager
def rounding(model: nn.Module, roundings: Mapping[str, InputRounding]) -> Iterator[None]:
    """``round_inputs`` for a while: in the end the model rounds nothing."""
    round_inputs(model, roundings)
    try:
        yield
    finally:
        round_inputs(model, {})


def _hook(how: InputRounding) -> Any:
    return lambda module, inputs: (how(inputs[0]), *inputs[1:])


def _rounded(values: Tensor, lowest: Tensor, highest: Tensor, bits: int, symmetric: bool) -> Tensor:
    """float32 values rounded to the 2^bits of [lowest, highest] widened to hold 0; 2^bits - 1 where symmetric."""
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        step = _usable(torch.maximum(-lowest, highest) / top)
        return torch.div(values, step).round_().clamp_(-top, top).mul_(step)
    top = 2**bits - 1
    step = _usable((highest - lowest) / top)
    zero = (-lowest / step).round_().clamp_(0, top)
    return torch.div(values, step).round_().add_(zero).clamp_(0, top).sub_(zero).mul_(step)


def _usable(step: Tensor) -> Tensor:
    """Inputs without extent (all 0) get step 1, which keeps their zeros and divides by no zero."""
    return torch.where(step > 0, step, torch.ones_like(step))
