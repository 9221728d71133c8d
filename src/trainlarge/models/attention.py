"""Attention over packed rows: no padding, no mask, every token sees its whole row."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn import functional


class Rotary(NamedTuple):
    """Rotary position tables, [..., sequence, head width]; the sine's first half is negated."""

    cos: Tensor
    sin: Tensor

    def at(self, positions: Tensor) -> Rotary:
        """Tables of the given positions, [rows, 1, m, head width] for [rows, m]."""
        return Rotary(self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1))


@lru_cache(maxsize=64)
def rotary_tables(length: int, head_width: int, base: float, dtype: torch.dtype, device: torch.device) -> Rotary:
    """Tables of positions 0 to ``length - 1``: angle s / base^(2i / head width) for pair i (Su et al. 2021, eq. 15)."""
    # What is first made while evaluating must also serve training, which inference tensors cannot.
    with torch.inference_mode(False):
        frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float) / head_width)
        angles = torch.arange(length).unsqueeze(1) * frequencies
        cos, sin = angles.cos(), angles.sin()
        tables = torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)
        return Rotary(*(table.to(device, dtype) for table in tables))


def rotate(x: Tensor, rotary: Rotary | None) -> Tensor:
    """Rotate each pair (i, i + head width / 2) of channels of [rows, heads, sequence, head width] by its angle."""
    if rotary is None:
        return x
    return torch.addcmul(x * rotary.cos, x.roll(x.shape[-1] // 2, -1), rotary.sin)


def split_heads(x: Tensor, rows: int, parts: int, head_width: int) -> tuple[Tensor, ...]:
    """``parts`` tensors [rows, heads, sequence, head width] of [rows * sequence, parts * heads * head width]."""
    heads = x.shape[-1] // (parts * head_width)
    return x.view(rows, -1, parts, heads, head_width).permute(2, 0, 3, 1, 4).contiguous().unbind(0)


def join_heads(x: Tensor) -> Tensor:
    """[rows * sequence, heads * head width] of [rows, heads, sequence, head width]."""
    rows, heads, length, head_width = x.shape
    return x.transpose(1, 2).reshape(rows * length, heads * head_width)


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float, kind: str) -> Tensor:
    """softmax(Q K' / sqrt(head width)) V (Vaswani et al. 2017, eq. 1).

    Args:
        query: [rows, heads, queries, head width].
        key: [rows, heads, sequence, head width].
        value: as ``key``.
        dropout: probability with which an attention weight is dropped.
        kind: the library's name of the model's attention: ``eager`` is batched products, the fastest on the CPU; all
            else is torch's fused one, the fastest on a GPU.

    Returns:
        As ``query``.
    """
    if kind == "eager":
        return batched_attention(query, key, value, dropout)
    return functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)


def batched_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Attention as batched products; on the CPU, the backward pass of the fused kernel is slow."""
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5
    if dropout:
        queries, keys, values = flat
        weights = functional.dropout(_scaled_product(queries, keys.mT, scale).softmax(-1), dropout)
        return torch.bmm(weights, values).view_as(query)
    context: Tensor = _SoftmaxAttention.apply(scale, *flat)  # type: ignore[no-untyped-call]
    return context.view_as(query)


class _Context(FunctionCtx):
    """What the forward pass keeps for the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    scale: float


class _SoftmaxAttention(Function):
    """Attention with its backward pass by hand: 5 to 8 % off a training step on the CPU against autograd's."""

    @staticmethod
    def forward(ctx: _Context, scale: float, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = _scaled_product(query, key.mT, scale).softmax(-1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return torch.bmm(weights, value)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of scale (none), query, key and value, from the weights that the forward pass kept."""
        (grad,) = grads
        query, key, value, weights = ctx.saved_tensors
        scores = torch._softmax_backward_data(torch.bmm(grad, value.mT), weights, -1, weights.dtype)
        grad_query = _scaled_product(scores, key, ctx.scale)
        grad_key = _scaled_product(scores.mT, query, ctx.scale)
        return None, grad_query, grad_key, torch.bmm(weights.mT, grad)


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Batched ``scale * left @ right``, the scale applied inside the product."""
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scale)
