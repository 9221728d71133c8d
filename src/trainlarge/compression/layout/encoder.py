"""Where the layers of an encoder lie, and in each of them its attention heads and feed-forward neurons, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Block:
    """Units of one layer side by side: the heads of an attention, or the neurons of a feed-forward network.

    Unit u owns ``width`` rows in each part of each input layer, and ``width`` columns of the output layer: row
    (p * units + u) * width + c of part p, column u * width + c.
    """

    inputs: tuple[str, ...]
    """Names of the linear layers that lead into the units."""

    parts: int
    """How often all units lie one after the other in the rows of an input: 3 for fused query, key and value, 2 for a
    gated feed-forward network, else 1."""

    output: str
    """Name of the linear layer that leads out."""

    units: int
    """How many there are."""

    width: int
    """Channels of a unit: the head width, or 1 for a neuron."""


@dataclass(frozen=True)
class Encoder:
    """The layers of an encoder, in order."""

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


@dataclass(frozen=True)
class _Layout:
    """Names of the linear layers within a layer of an architecture."""

    attention: str
    """The module that knows the width of a head."""

    head_width: str
    """Its attribute."""

    attention_inputs: tuple[str, ...]
    attention_parts: int
    attention_output: str
    ffn_inputs: tuple[str, ...]
    ffn_parts: int
    ffn_output: str

    def fits(self, layer: nn.Module) -> bool:
        """Whether the layer has them all, in shapes that fit each other, and no weights of its heads elsewhere."""
        names = (*self.attention_inputs, self.attention_output, *self.ffn_inputs, self.ffn_output)
        attention = _module(layer, self.attention)
        if attention is None or not all(isinstance(_module(layer, name), nn.Linear) for name in names):
            return False
        width = getattr(attention, self.head_width, None)
        return (
            isinstance(width, int)
            and self._units(layer, self.attention_inputs, self.attention_parts, self.attention_output, width)
            and self._units(layer, self.ffn_inputs, self.ffn_parts, self.ffn_output, 1)
            and self._knows_all_of(attention)
        )

    def _units(self, layer: nn.Module, inputs: tuple[str, ...], parts: int, output: str, width: int) -> bool:
        """Whether what leads into units of this width leads out of them again, channel by channel."""
        leads_out: Any = layer.get_submodule(output)
        into: list[Any] = [layer.get_submodule(name) for name in inputs]
        channels: int = leads_out.in_features
        return channels % width == 0 and all(linear.out_features == parts * channels for linear in into)

    def _knows_all_of(self, attention: nn.Module) -> bool:
        """Whether the attention has no parameters beside those of its linear layers, which a cut would leave whole."""
        known = {name.removeprefix(f"{self.attention}.") for name in (*self.attention_inputs, self.attention_output)}
        return all(name.rpartition(".")[0] in known for name, _ in attention.named_parameters())

    def blocks(self, name: str, layer: nn.Module) -> tuple[Block, Block]:
        """Attention and feed-forward network of the layer of that name."""
        width = getattr(_module(layer, self.attention), self.head_width)
        return (
            self._block(name, layer, self.attention_inputs, self.attention_parts, self.attention_output, width),
            self._block(name, layer, self.ffn_inputs, self.ffn_parts, self.ffn_output, 1),
        )

    def _block(
        self, name: str, layer: nn.Module, inputs: tuple[str, ...], parts: int, output: str, width: int
    ) -> Block:
        channels: Any = _module(layer, output)
        own = tuple(f"{name}.{entry}" for entry in inputs)
        return Block(own, parts, f"{name}.{output}", channels.in_features // width, width)


LAYOUTS = (
    # ModernBERT: query, key and value in one matrix, a gated feed-forward network.
    _Layout("attn", "head_dim", ("attn.Wqkv",), 3, "attn.Wo", ("mlp.Wi",), 2, "mlp.Wo"),
    # BERT and what follows its names: RoBERTa with either norm, XLM-RoBERTa, CamemBERT, ELECTRA, ...
    _Layout(
        "attention.self",
        "attention_head_size",
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        1,
        "attention.output.dense",
        ("intermediate.dense",),
        1,
        "output.dense",
    ),
    _Layout(
        "attention",
        "attention_head_size",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        1,
        "attention.out_lin",
        ("ffn.lin1",),
        1,
        "ffn.lin2",
    ),
)
"""Layers that are known, the last one DistilBERT's."""


def find_encoder(model: nn.Module) -> Encoder | None:
    """The encoder of a model: its one list of layers whose names are known; None where there is none, or several."""
    found = [
        _encoder(name, module, layout)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
        for layout in LAYOUTS
        if all(map(layout.fits, module))
    ]
    return found[0] if len(found) == 1 else None


def _encoder(name: str, layers: nn.ModuleList, layout: _Layout) -> Encoder:
    blocks = [layout.blocks(f"{name}.{index}", layer) for index, layer in enumerate(layers)]
    return Encoder(name, tuple(heads for heads, _ in blocks), tuple(neurons for _, neurons in blocks))


def _module(layer: nn.Module, name: str) -> nn.Module | None:
    try:
        return layer.get_submodule(name)
    except AttributeError:
        return None
