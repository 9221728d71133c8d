"""Attention of every token to its whole row, or to the tokens of it that are no padding."""

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


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores, [rows, 1, 1, sequence]: 0 at tokens, the least number at padding.

    It is finite, so that a row of padding alone has finite weights, as in the library.

    Args:
        mask: 1 where a token counts, 0 where it is padding, [rows, sequence].
        dtype: type of the scores.
    """
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, torch.finfo(dtype).min)[:, None, None]


def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float, kind: str, bias: Tensor | None = None) -> Tensor:
    """softmax(Q K' / sqrt(head width) + bias) V (Vaswani et al. 2017, eq. 1).

    Args:
        query: [rows, heads, queries, head width].
        key: [rows, heads, sequence, head width].
        value: as ``key``.
        dropout: probability with which an attention weight is dropped.
        kind: the library's name of the model's attention: ``eager`` is batched products, the fastest on the CPU; all
            else is torch's fused one, the fastest on a GPU.
        bias: added to the scores, see :func:`padding_bias`; None: every token sees its whole row.

    Returns:
        As ``query``.
    """
    if kind == "eager":
        return batched_attention(query, key, value, dropout, bias)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)


def batched_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float, bias: Tensor | None = None) -> Tensor:
    """Attention as batched products; on the CPU, the backward pass of the fused kernel is slow."""
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
    if bias is not None:
        bias = bias.expand(-1, query.shape[1], -1, -1).reshape(-1, 1, key.shape[-2])
    scale = query.shape[-1] ** -0.5
    if dropout:
        queries, keys, values = flat
        weights = functional.dropout(_scaled_product(queries, keys.mT, scale, bias).softmax(-1), dropout)
        return torch.bmm(weights, values).view_as(query)
    context: Tensor = _SoftmaxAttention.apply(scale, bias, *flat)  # type: ignore[no-untyped-call]
    return context.view_as(query)


class _Context(FunctionCtx):
    """What the forward pass keeps for the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    scale: float


class _SoftmaxAttention(Function):
    """Attention with its backward pass by hand: 5 to 8 % off a training step on the CPU against autograd's."""

    @staticmethod
    def forward(ctx: _Context, scale: float, bias: Tensor | None, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = _scaled_product(query, key.mT, scale, bias).softmax(-1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return torch.bmm(weights, value)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value, and none before, from the weights that the forward pass kept."""
        (grad,) = grads
        query, key, value, weights = ctx.saved_tensors
        scores = torch._softmax_backward_data(torch.bmm(grad, value.mT), weights, -1, weights.dtype)
        grad_query = _scaled_product(scores, key, ctx.scale)
        grad_key = _scaled_product(scores.mT, query, ctx.scale)
        return None, None, grad_query, grad_key, torch.bmm(weights.mT, grad)


def _scaled_product(left: Tensor, right: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """Batched ``scale * left @ right + bias``, both applied inside the product."""
    if bias is not None:
        return torch.baddbmm(bias, left, right, alpha=scale)
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scale)
