"""The cross entropy of the output layer, whatever the number of rows that it takes at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from trainlarge.models import loss as module
from trainlarge.models.loss import output_cross_entropy

ROWS, WIDTH, VOCABULARY = 23, 16, 301


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=draw).to(dtype).requires_grad_()
        for shape in ((ROWS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    return hidden, weight, bias, torch.randint(0, VOCABULARY, (ROWS,), generator=draw)


def with_gradients(loss: Tensor, *parameters: Tensor) -> list[Tensor]:
    return [loss, *torch.autograd.grad(3 * loss, parameters)]


@pytest.mark.parametrize("rows", [1, 5, 22, 23, 1000])
def test_loss_and_gradients_are_those_of_separate_layers(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", rows * 4 * VOCABULARY)
    hidden, weight, bias, labels = inputs()
    found = with_gradients(output_cross_entropy(hidden, weight, bias, labels), hidden, weight, bias)
    by_layers = with_gradients(cross_entropy(hidden @ weight.t() + bias, labels), hidden, weight, bias)
    for ours, theirs in zip(found, by_layers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [2, 1000])
def test_in_bf16_the_gradients_of_many_parts_are_added_in_fp32(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", rows * 4 * VOCABULARY)
    hidden, weight, bias, labels = inputs(torch.bfloat16)
    found = with_gradients(output_cross_entropy(hidden, weight, bias, labels), hidden, weight, bias)
    assert [tensor.dtype for tensor in found] == [torch.float32, *[torch.bfloat16] * 3]
    wide = [tensor.detach().float().requires_grad_() for tensor in (hidden, weight, bias)]
    exact = with_gradients(cross_entropy(wide[0] @ wide[1].t() + wide[2], labels), *wide)
    for ours, theirs in zip(found, exact, strict=True):
        assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()


def test_nothing_of_the_size_of_the_logits_is_kept() -> None:
    kept: list[int] = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        output_cross_entropy(*inputs())
    assert sum(kept) == ROWS * WIDTH + VOCABULARY * WIDTH + VOCABULARY


def test_a_hopeless_label_has_a_finite_loss() -> None:
    hidden, weight, _, labels = (tensor.detach() for tensor in inputs())
    bias = torch.zeros(VOCABULARY).index_fill(0, labels[:1], -1e6).requires_grad_()
    loss = output_cross_entropy(hidden, weight, bias, labels)
    loss.backward()
    assert torch.isfinite(loss) and bias.grad is not None and torch.isfinite(bias.grad).all()
