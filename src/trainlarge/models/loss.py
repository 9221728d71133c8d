"""Cross entropy of the output layer, without the logits of all predictions at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

CHUNK_BYTES = 64 * 2**20
"""Most bytes of fp32 logits at once. Parts of 32 and 64 MB took no longer than the whole on a CPU, those of 8 MB
up to a sixth longer."""


def output_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy in nats of ``hidden @ weight.T + bias`` against the labels.

    The logits are the largest tensor of a small model's step, and of any model with a large vocabulary. Here they
    become probabilities, and those the gradient, in the forward pass and some rows at a time: they are read and written
    a third as often as by separate layers, and never kept (as in Hsu et al. 2024, arXiv 2410.10989, section 3.2).

    Args:
        hidden: [n, width].
        weight: [vocabulary, width], of the same type.
        bias: [vocabulary], of the same type.
        labels: token ids that belong there, [n].

    Returns:
        A scalar in fp32, or in the type of ``hidden`` where that is wider.
    """
    loss: Tensor = _OutputCrossEntropy.apply(hidden, weight, bias, labels)  # type: ignore[no-untyped-call]
    return loss


class _Context(FunctionCtx):
    """What the forward pass keeps for the backward pass."""

    saved_tensors: tuple[Tensor, ...]
    dtypes: tuple[torch.dtype, ...]


class _OutputCrossEntropy(Function):
    @staticmethod
    def forward(ctx: _Context, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        rows = max(1, CHUNK_BYTES // (4 * len(weight)))
        losses, grads_hidden = [], []
        grad_weight: Tensor | None = None
        grad_bias = torch.zeros(bias.shape, dtype=_wide(bias), device=bias.device)
        for part, wanted in zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True):
            loss, residual = _loss_and_residual(part, weight, bias, wanted)
            losses.append(loss)
            narrow = residual.to(hidden.dtype)
            # The mean's 1 / n goes to the small factors.
            grads_hidden.append((narrow @ weight).div_(len(hidden)))
            grad_weight = _accumulated(grad_weight, narrow.t(), part / len(hidden))
            grad_bias += residual.sum(0)
        # There is a part at least, so that the weights have a gradient.
        ctx.save_for_backward(torch.cat(grads_hidden), grad_weight, grad_bias / len(hidden))  # type: ignore[arg-type]
        ctx.dtypes = hidden.dtype, weight.dtype, bias.dtype
        return torch.stack(losses).sum() / len(hidden)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scaled = (tensor * grads[0] for tensor in ctx.saved_tensors)
        return *(tensor.to(dtype) for tensor, dtype in zip(scaled, ctx.dtypes, strict=True)), None


def _loss_and_residual(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross entropies, and P - onehot(labels) [n, vocabulary], both in fp32 or wider."""
    index = labels.unsqueeze(1)
    residual = torch.addmm(bias, hidden, weight.t()).softmax(-1, dtype=_wide(hidden))
    loss = -residual.gather(1, index).clamp_min_(torch.finfo(torch.float32).tiny).log_().sum()
    residual.scatter_add_(1, index, residual.new_full((1, 1), -1.0).expand_as(index))
    return loss, residual


def _accumulated(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """``total + left @ right``: from the second product on in fp32 or wider."""
    if total is None:
        return left @ right
    if left.dtype == _wide(left):
        return total.addmm_(left, right)
    return total.to(_wide(left)).add_(left @ right)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
