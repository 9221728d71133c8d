"""Cutting a checkpoint: units, layers and tokens are removed from its tensors, and what describes it follows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from trainlarge.compression.layout.encoder import Block, Encoder
from trainlarge.compression.layout.shapes import Tokens
from trainlarge.compression.layout.tables import Tables
from trainlarge.compression.weights import Weights
from trainlarge.config.structure import KNOWN_LAYERS
from trainlarge.errors import UserError

Kind = Literal["heads", "neurons"]


def encoder_of(weights: Weights, key: str) -> Encoder:
    """The encoder of a checkpoint. Raises UserError on ``key`` where there is none that is known."""
    if weights.encoder is None:
        raise UserError(key, weights.architecture, KNOWN_LAYERS)
    return weights.encoder


def tables_of(weights: Weights, key: str) -> Tables:
    """The tables of a checkpoint. Raises UserError on ``key`` where there are none that are known."""
    if weights.tables is None:
        raise UserError(key, weights.architecture, "used for a Hugging Face model with one token embedding")
    return weights.tables


def keep_units(weights: Weights, kind: Kind, kept: Sequence[Tensor]) -> Weights:
    """Only the units ``kept`` (rising numbers, for each layer) of the heads or neurons."""
    encoder = encoder_of(weights, "structure")
    blocks: tuple[Block, ...] = getattr(encoder, kind)
    cuts: dict[str, tuple[int, Tensor]] = {}
    for block, units in zip(blocks, kept, strict=True):
        if len(units) < block.units:
            cuts |= _block_cuts(weights, block, units)
    smaller = tuple(replace(block, units=len(units)) for block, units in zip(blocks, kept, strict=True))
    numbers: dict[str, object] = {
        "heads": tuple(tuple(units.tolist()) for units in kept),
        "neurons": tuple(map(len, kept)),
    }
    return replace(
        _cut(weights, cuts),
        encoder=replace(encoder, **{kind: smaller}),  # type: ignore[arg-type]
        structure=replace(weights.structure, **{kind: numbers[kind]}),  # type: ignore[arg-type]
    )


def keep_layers(weights: Weights, kept: list[int]) -> Weights:
    """Only the layers ``kept`` (rising numbers), renumbered from 0."""
    encoder = encoder_of(weights, "structure")
    places = {old: new for new, old in enumerate(kept)}
    pattern = re.compile(rf"{re.escape(encoder.layers)}\.(\d+)\.")

    def renamed(name: str) -> str | None:
        match = pattern.match(name)
        if match is None:
            return name
        place = places.get(int(match[1]))
        return None if place is None else f"{encoder.layers}.{place}.{name[match.end() :]}"

    def moved(block: Block) -> Block:
        inputs = tuple(renamed(name) or name for name in block.inputs)
        return replace(block, inputs=inputs, output=renamed(block.output) or block.output)

    heads, neurons = ([moved(blocks[index]) for index in kept] for blocks in (encoder.heads, encoder.neurons))
    modules = {name: renamed(name) for name in weights.structure.ranks}
    stays = {name: new for name, new in modules.items() if new is not None}
    return replace(
        weights.renamed(renamed),
        encoder=Encoder(encoder.layers, tuple(heads), tuple(neurons)),
        structure=weights.structure.without_layers(kept, stays),
    )


def keep_tokens(weights: Weights, tokens: Tokens) -> Weights:
    """Only some entries of the vocabulary."""
    tables = tables_of(weights, "vocabulary")
    index = torch.tensor(tokens.kept)
    modules = [name for name in (tables.embedding, tables.output) if name]
    rows = [name for module in modules for name in row_tensors(weights, module)]
    cuts = {name: (0, index) for name in (*rows, *tables.vectors) if name in weights.tensors}
    padding = None if tables.padding is None else tokens.kept.index(tables.padding)
    return replace(
        _cut(weights, cuts),
        tables=replace(tables, size=len(tokens.kept), padding=padding),
        structure=replace(weights.structure, tokens=tokens),
    )


def row_tensors(weights: Weights, module: str) -> list[str]:
    """Names of the tensors with a row for each output of a linear layer, factorized or not; tied ones only once."""
    names = (f"{module}.weight", f"{module}.up.weight", f"{module}.bias", f"{module}.up.bias")
    return [name for name in names if name in weights.tensors]


def column_tensor(weights: Weights, module: str) -> str:
    """Name of the tensor with a column for each input of a linear layer, factorized or not."""
    whole = f"{module}.weight"
    return whole if whole in weights.tensors else f"{module}.down.weight"


def matrix(weights: Weights, module: str) -> Tensor:
    """The matrix of a linear layer [out, in] in float64, multiplied out where it is factorized."""
    whole = weights.tensors.get(f"{module}.weight")
    if whole is not None:
        return whole.double()
    up, down = (weights.tensors[f"{module}.{factor}.weight"] for factor in ("up", "down"))
    return up.double() @ down.double()


def _block_cuts(weights: Weights, block: Block, units: Tensor) -> dict[str, tuple[int, Tensor]]:
    channels = torch.arange(block.width)
    columns = (units.unsqueeze(1) * block.width + channels).flatten()
    starts = torch.arange(block.parts).unsqueeze(1) * (block.units * block.width)
    rows = (starts + columns).flatten()
    inputs = {name: (0, rows) for module in block.inputs for name in row_tensors(weights, module)}
    return {**inputs, column_tensor(weights, block.output): (1, columns)}


def _cut(weights: Weights, cuts: Mapping[str, tuple[int, Tensor]]) -> Weights:
    tensors = {
        name: tensor.index_select(cuts[name][0], cuts[name][1]) if name in cuts else tensor
        for name, tensor in weights.tensors.items()
    }
    origins = {name: weights.origin(name).cut(*cut, tuple(weights.tensors[name].shape)) for name, cut in cuts.items()}
    return replace(weights, tensors=tensors, origins={**weights.origins, **origins})
