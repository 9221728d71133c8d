"""Activation quantization: linear layers whose inputs are fake-quantized, x' = scale * (code - zero_point).

The values are those that integer arithmetic would give, computed in floats: codes and zero points are whole numbers up
to 255, which float32 holds exactly. So a product of quantized inputs with quantized weights is that of their integers,
times both scales.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

_HOOKS = "fake_quantize_hooks"
"""Attribute of a model that holds the handles of its hooks; deep copies of the model quantize their inputs, too."""
_QUANTIZER = "input_quantizer"
"""Attribute of a layer for those who compute with its weights and do not call it."""


class FakeQuantizer(Protocol):
    """How the inputs of one layer are quantized."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """The quantized inputs [..., in], of the same data type."""

    def is_inside(self, inputs: Tensor) -> Tensor | None:
        """Bool, of the shape of ``inputs``: those that are not clamped; None: all."""


@dataclass(frozen=True)
class PerToken:
    """One range per vector [in] of inputs [..., in]: its own smallest and largest value."""

    bits: int
    symmetric: bool

    def __call__(self, inputs: Tensor) -> Tensor:
        values = inputs.float()
        # torch.aminmax takes several times as long as both.
        lowest, highest = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
        return fake_quantize(values, lowest, highest, self.bits, self.symmetric).to(inputs.dtype)

    def is_inside(self, inputs: Tensor) -> None:
        return None


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
        return fake_quantize(values, lowest, highest, self.bits, self.symmetric).to(inputs.dtype)

    def is_inside(self, inputs: Tensor) -> Tensor:
        values = inputs.float()
        lowest, highest = values.new_tensor(self.lowest), values.new_tensor(self.highest)
        scale, zero_point, bottom, top = _codes(lowest, highest, self.bits, self.symmetric)
        codes = torch.div(values, scale).round_().add_(zero_point)
        return (codes >= bottom) & (codes <= top)


def fake_quantize(values: Tensor, lowest: Tensor, highest: Tensor, bits: int, symmetric: bool) -> Tensor:
    """Values rounded to the 2^bits equally spaced ones of a range; 2^bits - 1 of them where symmetric.

    Args:
        values: float32.
        lowest: start of the range, broadcast against ``values``; the range is widened to hold 0, which stays 0.
        highest: end of the range.
    """
    scale, zero_point, bottom, top = _codes(lowest, highest, bits, symmetric)
    if symmetric:
        return torch.div(values, scale).round_().clamp_(bottom, top).mul_(scale)
    return torch.div(values, scale).round_().add_(zero_point).clamp_(bottom, top).sub_(zero_point).mul_(scale)


def _codes(lowest: Tensor, highest: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, int, int]:
    """Scale, zero point, smallest and largest code of a range."""
    lowest, highest = lowest.clamp(max=0), highest.clamp(min=0)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        return usable_scale(torch.maximum(-lowest, highest) / top), torch.zeros_like(lowest), -top, top
    top = 2**bits - 1
    scale = usable_scale((highest - lowest) / top)
    return scale, (-lowest / scale).round_().clamp_(0, top), 0, top


@dataclass(frozen=True)
class StraightThrough:
    """Quantizes inputs; their gradient is that of the quantized ones inside the range, and 0 outside."""

    quantizer: FakeQuantizer

    def __call__(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, _StraightThrough.apply(inputs, self.quantizer))  # type: ignore[no-untyped-call]

    def is_inside(self, inputs: Tensor) -> Tensor | None:
        return self.quantizer.is_inside(inputs)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, quantizer: FakeQuantizer) -> Tensor:
        is_inside = quantizer.is_inside(inputs)
        ctx.save_for_backward(*(() if is_inside is None else (is_inside,)))
        return quantizer(inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        return (gradient * saved[0] if saved else gradient), None


def fake_quantize_inputs(model: nn.Module, quantizers: Mapping[str, FakeQuantizer]) -> None:
    """Make layers of ``model`` quantize their inputs, in place of what was set before.

    Args:
        model: its modules and weights stay as they are, so that it is saved as any other.
        quantizers: name of a module -> how its first argument is quantized. Empty: no input is quantized.
    """
    for handle in getattr(model, _HOOKS, ()):
        handle.remove()
    for layer in model.modules():
        layer.__dict__.pop(_QUANTIZER, None)
    layers = {name: model.get_submodule(name) for name in quantizers}
    for name, layer in layers.items():
        setattr(layer, _QUANTIZER, quantizers[name])
    setattr(model, _HOOKS, [layer.register_forward_pre_hook(_quantize_first) for layer in layers.values()])


def has_fake_quantized_inputs(model: nn.Module) -> bool:
    """Whether any layer of ``model`` quantizes its inputs."""
    return bool(getattr(model, _HOOKS, ()))


def is_quantizing(layer: nn.Module) -> bool:
    """Whether ``layer`` quantizes its inputs."""
    return _QUANTIZER in layer.__dict__


def input_of(layer: nn.Module, inputs: Tensor) -> Tensor:
    """What ``layer`` computes with where it is given ``inputs``: their quantized values, if it quantizes them."""
    quantizer: FakeQuantizer | None = layer.__dict__.get(_QUANTIZER)
    return inputs if quantizer is None else quantizer(inputs)


@contextmanager
def fake_quantized_inputs(model: nn.Module, quantizers: Mapping[str, FakeQuantizer]) -> Iterator[None]:
    """``fake_quantize_inputs`` within a context; afterwards no layer quantizes its inputs."""
    fake_quantize_inputs(model, quantizers)
    try:
        yield
    finally:
        fake_quantize_inputs(model, {})


def _quantize_first(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return input_of(layer, inputs[0]), *inputs[1:]


def usable_scale(scale: Tensor) -> Tensor:
    """The scale, and 1 where all values are 0: it keeps their zeros, and nothing is divided by 0."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))
