"""The fast forward pass of heads that label rows against the library's, with padding on either side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from trainlarge.models.build import build_model
from trainlarge.models.fake_quantize import PerToken, fake_quantized_inputs
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.fast import fast_path
from trainlarge.models.flops import executed_training_flops
from trainlarge.models.forward import library_row_logits, row_logits
from trainlarge.models.layout import UnitLayout
from trainlarge.models.low_rank import LowRankLinear
from trainlarge.models.shape import Shape

LENGTH, LABELS = 12, 3
MODERN = Shape("modern", 32, 3, 4, 2.0, vocab_size=60, positions=20, labels=LABELS)
SHAPES = [
    MODERN,
    replace(MODERN, depth=1, heads=1),
    Shape("roberta", 32, 3, 4, 4.0, vocab_size=60, positions=20, labels=LABELS),
    Shape("roberta", 24, 1, 1, 2.0, vocab_size=60, positions=20, labels=LABELS),
]
BOTH = [SHAPES[0], SHAPES[2]]
of_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
of_both = pytest.mark.parametrize("shape", BOTH, ids=str)
both_attentions = pytest.mark.parametrize("kind", ["eager", "sdpa"])
both_sides = pytest.mark.parametrize("side", ["right", "left"])


def build(shape: Shape, kind: str = "eager", pooling: str = "cls") -> PreTrainedModel:
    model = build_model(shape, init_std=0.2, seed=0, attention=kind, head=Head.SEQUENCE_LABEL)
    model.config.classifier_pooling = pooling
    return model


def batch(rows: int = 4, side: str = "right") -> tuple[Tensor, Tensor, Tensor]:
    """Inputs and mask [rows, LENGTH] of rows of several lengths, one of them without padding; labels [rows]."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(4, 60, (rows, LENGTH), generator=generator)
    lengths = LENGTH - 3 * (torch.arange(rows) % 4)
    mask = (torch.arange(LENGTH) < lengths.unsqueeze(1)).long()
    mask = mask if side == "right" else mask.flip(1)
    return inputs * mask, mask, torch.arange(rows) % LABELS


def gradients(logits: Tensor, labels: Tensor, model: PreTrainedModel) -> dict[str, Tensor]:
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(cross_entropy(logits.float(), labels), weights)
    return dict(zip(names, found, strict=True))


def assert_same(model: PreTrainedModel, side: str = "right") -> None:
    """Logits and every gradient of the fast pass are the library's."""
    inputs, mask, labels = batch(side=side)
    assert fast_path(model) is not None
    fast, library = row_logits(model, inputs, mask), library_row_logits(model, inputs, mask)
    torch.testing.assert_close(fast, library, atol=1e-5, rtol=1e-5)
    wanted = gradients(library, labels, model)
    assert all(gradient.any() for gradient in wanted.values())
    for name, gradient in gradients(fast, labels, model).items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4, msg=name)


@both_sides
@both_attentions
@of_shapes
def test_logits_and_every_gradient_are_the_librarys(shape: Shape, kind: str, side: str) -> None:
    assert_same(build(shape, kind), side)


@both_sides
@both_attentions
def test_a_head_that_averages_leaves_padding_out(kind: str, side: str) -> None:
    assert_same(build(MODERN, kind, "mean"), side)


@both_attentions
@of_both
def test_what_stands_in_padding_changes_nothing(shape: Shape, kind: str) -> None:
    model, (inputs, mask, _) = build(shape, kind), batch()
    longer = [torch.cat([tensor, tensor.new_zeros(len(tensor), 3)], 1) for tensor in (inputs, mask)]
    torch.testing.assert_close(row_logits(model, *longer), row_logits(model, inputs, mask), atol=1e-5, rtol=1e-5)
    row = 3
    alone = row_logits(model, inputs[row : row + 1, : mask[row].sum()], mask[row : row + 1, : mask[row].sum()])
    torch.testing.assert_close(row_logits(model, inputs, mask)[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@of_both
def test_pruned_heads_and_neurons(shape: Shape) -> None:
    model, layout = build(shape), FAMILIES[shape.name].layout
    for layer, (heads, neurons) in zip(layers_of(model), ((2, 40), (1, 24), (3, 17)), strict=True):
        keep_first(layer, layout.heads, heads * (shape.width // shape.heads))
        keep_first(layer, layout.neurons, neurons)
    assert_same(model)


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    return next(list(part) for part in model.modules() if isinstance(part, nn.ModuleList))


def keep_first(layer: nn.Module, units: UnitLayout, count: int) -> None:
    """Keep the first ``count`` channels of heads, or neurons."""
    for name in units.inputs:
        linear: Any = layer.get_submodule(name)
        rows = torch.arange(linear.out_features).view(units.parts, -1)[:, :count].flatten()
        linear.weight = nn.Parameter(linear.weight.detach()[rows])
        linear.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach()[rows])
    output: Any = layer.get_submodule(units.output)
    output.weight = nn.Parameter(output.weight.detach()[:, :count])


@of_both
def test_factorized_layers(shape: Shape) -> None:
    model = build(shape)
    linears = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    for name in linears:
        owner, _, leaf = name.rpartition(".")
        layer = LowRankLinear(model.get_submodule(name), 2)  # type: ignore[arg-type]
        for factor in (layer.up, layer.down):
            nn.init.normal_(factor.weight, std=0.3)
        setattr(model.get_submodule(owner), leaf, layer)
    assert_same(model)


@of_both
def test_under_autocast_results_are_as_near_to_fp32_as_the_librarys(shape: Shape) -> None:
    model, (inputs, mask, labels) = build(shape), batch(rows=32)
    exact = library_row_logits(model, inputs, mask)
    wanted = gradients(exact, labels, model)
    with torch.autocast("cpu", torch.bfloat16):
        library, fast = library_row_logits(model, inputs, mask), row_logits(model, inputs, mask)
    assert fast.dtype == library.dtype == torch.bfloat16
    assert error([fast], [exact]) < 1.3 * error([library], [exact])
    of_fast, of_library = (gradients(logits, labels, model).values() for logits in (fast, library))
    assert error(of_fast, wanted.values()) < 1.3 * error(of_library, wanted.values())


def error(found: Any, wanted: Any) -> float:
    one, other = (torch.cat([tensor.float().flatten() for tensor in tensors]) for tensors in (found, wanted))
    return ((one - other).norm() / other.norm()).item()


@both_attentions
@of_both
def test_dropout_acts_in_training_alone_and_as_in_the_library(shape: Shape, kind: str) -> None:
    model, (inputs, mask, _) = build(replace(shape, dropout=0.1), kind), batch()
    with torch.no_grad():
        fast, library = (spread(forward, model, inputs, mask) for forward in (row_logits, library_row_logits))
        model.eval()
        torch.testing.assert_close(row_logits(model, inputs, mask), library_row_logits(model, inputs, mask))
        assert spread(row_logits, model, inputs, mask) == 0
    assert fast == pytest.approx(library, rel=0.1) and fast > 0


def spread(forward: Any, model: PreTrainedModel, inputs: Tensor, mask: Tensor) -> float:
    """Standard deviation of the logits over draws of dropout."""
    logits = forward(model, inputs.repeat(400, 1), mask.repeat(400, 1))
    return logits.view(400, -1).var(0).mean().sqrt().item()


@of_both
def test_executed_flops_are_those_of_the_training_step(shape: Shape) -> None:
    model, (inputs, mask, labels) = build(shape), batch()
    with FlopCounterMode(display=False) as counter:
        cross_entropy(row_logits(model, inputs, mask), labels).backward()
    executed = executed_training_flops(shape, LENGTH, 1, "fast", Head.SEQUENCE_LABEL)
    assert counter.get_total_flops() == len(inputs) * executed
    assert executed < executed_training_flops(shape, LENGTH, 1, "library", Head.SEQUENCE_LABEL)


@of_both
def test_inputs_are_quantized_as_by_the_librarys_modules(shape: Shape) -> None:
    model, (inputs, mask, _) = build(shape).double(), batch()
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    exact = row_logits(model, inputs, mask)
    with fake_quantized_inputs(model, dict.fromkeys(layers, PerToken(4, symmetric=True))):
        assert fast_path(model) is not None
        rounded = row_logits(model, inputs, mask)
        torch.testing.assert_close(rounded, library_row_logits(model, inputs, mask), atol=1e-6, rtol=0)
    assert not torch.allclose(rounded, exact)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_family_without_such_a_pass_takes_the_librarys(name: str) -> None:
    model, (inputs, mask, _) = build(replace(MODERN, name=name)), batch()
    assert fast_path(model) is None
    torch.testing.assert_close(row_logits(model, inputs, mask), library_row_logits(model, inputs, mask), atol=0, rtol=0)
