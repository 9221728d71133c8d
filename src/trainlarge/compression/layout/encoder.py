"""Where the layers of a model are, and in each of them its attention heads and feed-forward neurons, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from trainlarge.models.foreign import LAYOUTS
from trainlarge.models.layout import LayerLayout, UnitLayout


@dataclass(frozen=True)
class Block:
    """Units of one layer side by side: the heads of an attention, or the neurons of a feed-forward network.

    Unit u owns ``width`` rows in each part of each input layer, and ``width`` columns of the output layer: row
    (p * units + u) * width + c of part p, column u * width + c.
    """

    inputs: tuple[str, ...]
    """Names of the linear layers that lead into the units."""

    parts: int
    """How often all units follow each other in the rows of an input, see
    :class:`trainlarge.models.layout.UnitLayout`."""

    output: str
    """Name of the linear layer that leads out."""

    units: int
    """How many there are."""

    width: int
    """Channels of a unit: the head width, or 1 for a neuron."""


@dataclass(frozen=True)
class Encoder:
    """The layers of an encoder or a decoder, in order."""

    layers: str
    """Name of the list of layers, such as ``model.layers``; layer i is ``model.layers.i``."""

    heads: tuple[Block, ...]
    """The attention of each layer."""

    neurons: tuple[Block, ...]
    """The feed-forward network of each layer."""

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self.heads)


def find_encoder(model: nn.Module) -> Encoder | None:
    """The layers of a model: its one list of layers whose names are known; None where there is none, or several."""
    encoders = [
        _encoder(name, module, layout)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
        for layout in LAYOUTS
        if all(_fits(layout, layer) for layer in module)
    ]
    return encoders[0] if len(encoders) == 1 else None


def _fits(layout: LayerLayout, layer: nn.Module) -> bool:
    """Whether the layer has all of these parts, in shapes that fit each other.

    Weights of its heads may be nowhere else.
    """
    names = (*layout.heads.inputs, layout.heads.output, *layout.neurons.inputs, layout.neurons.output)
    attention = _module(layer, layout.attention)
    if attention is None or not all(isinstance(_module(layer, name), nn.Linear) for name in names):
        return False
    width = getattr(attention, layout.head_width, None)
    return (
        isinstance(width, int)
        and _units_fit(layer, layout.heads, width)
        and _units_fit(layer, layout.neurons, 1)
        and _has_no_others(attention, layout)
    )


def _units_fit(layer: nn.Module, units: UnitLayout, width: int) -> bool:
    """Whether what leads into units of this width leads out of them again, channel by channel."""
    channels = _linear(layer, units.output).in_features
    into = (_linear(layer, name).out_features for name in units.inputs)
    return channels % width == 0 and all(rows == units.parts * channels for rows in into)


def _has_no_others(attention: nn.Module, layout: LayerLayout) -> bool:
    """Whether the attention has no parameters but those of its linear layers: a cut would leave others whole."""
    known = {name.removeprefix(f"{layout.attention}.") for name in (*layout.heads.inputs, layout.heads.output)}
    return all(name.rpartition(".")[0] in known for name, _ in attention.named_parameters())


def _encoder(name: str, layers: nn.ModuleList, layout: LayerLayout) -> Encoder:
    heads, neurons = [], []
    for index, layer in enumerate(layers):
        width = int(getattr(layer.get_submodule(layout.attention), layout.head_width))
        heads.append(_block(f"{name}.{index}", layer, layout.heads, width))
        neurons.append(_block(f"{name}.{index}", layer, layout.neurons, 1))
    return Encoder(name, tuple(heads), tuple(neurons))


def _block(name: str, layer: nn.Module, units: UnitLayout, width: int) -> Block:
    inputs = tuple(f"{name}.{entry}" for entry in units.inputs)
    count = _linear(layer, units.output).in_features // width
    return Block(inputs, units.parts, f"{name}.{units.output}", count, width)


def _linear(layer: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, layer.get_submodule(name))


def _module(layer: nn.Module, name: str) -> nn.Module | None:
    try:
        return layer.get_submodule(name)
    except AttributeError:
        return None
