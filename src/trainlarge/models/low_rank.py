"""Factorized layers: a matrix W [m, n] as the product U D of two thinner ones, U [m, r] and D [r, n]."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor, nn
from torch.nn import functional

from trainlarge.models.fake_quantize import input_of


class LowRankLinear(nn.Module):
    """A linear layer y = U (D x) + b of rank r."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        """In place of ``layer``, whose bias it takes over; both factors are still empty."""
        super().__init__()
        rows, columns = layer.weight.shape
        device, dtype = layer.weight.device, layer.weight.dtype
        self.down = nn.Linear(columns, rank, bias=False, device=device, dtype=dtype)
        """D [r, n]."""
        self.up = nn.Linear(rank, rows, bias=False, device=device, dtype=dtype)
        """U [m, r], and the bias."""
        self.up.bias = layer.bias

    @property
    def weight(self) -> Tensor:
        """W = U D, made anew: some models look at the matrix of a layer themselves (T5 at its data type)."""
        return self.up.weight @ self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.up(self.down(x))
        return product


class LowRankEmbedding(nn.Module):
    """A table of vectors E = U D of rank r: row i is U_i D."""

    def __init__(self, table: nn.Embedding, rank: int) -> None:
        """In place of ``table``; both factors are still empty."""
        super().__init__()
        rows, columns = table.weight.shape
        device, dtype = table.weight.device, table.weight.dtype
        self.up = nn.Embedding(rows, rank, device=device, dtype=dtype)
        """U [entries, r]; no padding row of its own, since D maps what stands there."""
        self.down = nn.Linear(columns, rank, bias=False, device=device, dtype=dtype)
        """D [r, width], as the output layer of a tied model reads it."""
        self.padding_idx = table.padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        return functional.linear(self.up(ids), self.down.weight.t())


def tie(layer: LowRankLinear, table: LowRankEmbedding) -> None:
    """Make an output layer use the factors of the token embedding."""
    layer.up.weight, layer.down.weight = table.up.weight, table.down.weight


LinearLayer: TypeAlias = nn.Linear | LowRankLinear
"""A linear layer, factorized or not."""


def last_product(x: Tensor, layer: LinearLayer) -> tuple[Tensor, Tensor, Tensor | None]:
    """The last product of a linear or factorized layer: its input, matrix and bias, in the type of ``x``.

    Inputs are quantized where the layer quantizes them.
    """
    if isinstance(layer, LowRankLinear):
        x, layer = functional.linear(input_of(layer.down, x), layer.down.weight.to(x.dtype)), layer.up
    bias = layer.bias
    return input_of(layer, x), layer.weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
