"""Importance of the units of a layer, computed from the weights alone."""

from __future__ import annotations

import torch
from torch import Tensor

from trainlarge.compression.layout.encoder import Block
from trainlarge.compression.structure.cut import Kind, matrix
from trainlarge.compression.weights import Weights


def weight_importance(weights: Weights, kind: Kind, block: Block) -> Tensor:
    """Importance of each unit of a block, float64 [units]: see ``Heads`` and ``Neurons``."""
    return _head_importance(weights, block) if kind == "heads" else _neuron_importance(weights, block)


def _head_importance(weights: Weights, block: Block) -> Tensor:
    """||W_out^h W_value^h||_F, from the two Gram matrices [head width, head width] of a head."""
    value = _rows(weights, block, block.inputs[-1])[-1]
    out = _columns(weights, block)
    inner, outer = value @ value.mT, out.mT @ out
    return (inner * outer).sum((1, 2)).clamp(min=0).sqrt()


def _neuron_importance(weights: Weights, block: Block) -> Tensor:
    """The product of the norms of the rows that lead into a neuron and of the column that leads out."""
    parts = [part for name in block.inputs for part in _rows(weights, block, name)]
    into = torch.stack([part.flatten(1).norm(dim=1) for part in parts])
    out_of: Tensor = _columns(weights, block).flatten(1).norm(dim=1)
    return into.prod(0) * out_of


def _rows(weights: Weights, block: Block, module: str) -> Tensor:
    """[parts, units, width, in] of an input layer."""
    rows = matrix(weights, module)
    return rows.view(block.parts, block.units, block.width, rows.shape[1])


def _columns(weights: Weights, block: Block) -> Tensor:
    """[units, out, width] of the output layer."""
    columns = matrix(weights, block.output)
    return columns.view(len(columns), block.units, block.width).transpose(0, 1)
