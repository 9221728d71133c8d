"""The fast forward pass against the library's: same logits, same loss, same gradients, same dropout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from trainlarge.models import attention
from trainlarge.models.build import build_model
from trainlarge.models.fake_quantize import FakeQuantizer, PerTensor, PerToken, StraightThrough, fake_quantize_inputs
from trainlarge.models.fast import fast_path
from trainlarge.models.forward import library_logits, logits_at, loss_at
from trainlarge.models.shape import Shape

SHAPES = [
    Shape("modern", 32, 3, 2, 2.0, vocab_size=60, positions=20),
    Shape("modern", 48, 1, 1, 1.5, vocab_size=60, positions=20, tied=False),
    Shape("roberta", 32, 3, 4, 4.0, vocab_size=60, positions=20),
    Shape("roberta", 24, 1, 1, 2.0, vocab_size=60, positions=20, tied=False),
]
BOTH = [SHAPES[0], SHAPES[2]]


def build(shape: Shape, attention: str = "eager") -> PreTrainedModel:
    return build_model(shape, init_std=0.2, seed=0, attention=attention)


def batch(rows: int = 3, length: int = 12, count: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(4, 60, (rows, length), generator=generator)
    positions = torch.rand(rows, length, generator=generator).argsort(1)[:, :count]
    return inputs, positions, torch.randint(4, 60, (rows, count), generator=generator)


def gradients(loss: Tensor, model: PreTrainedModel) -> dict[str, Tensor]:
    names, weights = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights), strict=True))


both_attentions = pytest.mark.parametrize("kind", ["eager", "sdpa"])
"""What ``impl.attention`` may be: the CPU's and the GPU's fastest."""


@both_attentions
@pytest.mark.parametrize("shape", BOTH, ids=str)
def test_the_fast_path_attends_as_the_model_was_told(shape: Shape, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (inputs, positions, labels) = build(shape, kind), batch()
    fused, calls = functional.scaled_dot_product_attention, []

    def noted(*arguments: Any, **options: Any) -> Tensor:
        calls.append(options)
        return fused(*arguments, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", noted)
    loss_at(model, inputs, positions, labels)
    assert len(calls) == (shape.depth if kind == "sdpa" else 0)


@pytest.mark.parametrize("shape", BOTH, ids=str)
def test_both_attentions_give_the_same_logits(shape: Shape) -> None:
    inputs, positions, _ = batch()
    eager, fused = (logits_at(build(shape, kind), inputs, positions) for kind in ("eager", "sdpa"))
    torch.testing.assert_close(fused, eager, atol=1e-5, rtol=1e-5)


@both_attentions
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_are_the_whole_library_models_at_the_positions(shape: Shape, kind: str) -> None:
    model, (inputs, positions, _) = build(shape, kind), batch()
    rows = torch.arange(len(inputs)).unsqueeze(1)
    expected = model(input_ids=inputs).logits[rows, positions].flatten(0, 1)
    assert fast_path(model) is not None
    for logits in (logits_at(model, inputs, positions), library_logits(model, inputs, positions)):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@both_attentions
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_every_gradient_are_the_librarys(shape: Shape, kind: str) -> None:
    model, (inputs, positions, labels) = build(shape, kind), batch()
    expected = cross_entropy(library_logits(model, inputs, positions), labels.flatten())
    fast = cross_entropy(logits_at(model, inputs, positions), labels.flatten())
    fused = loss_at(model, inputs, positions, labels)
    wanted = gradients(expected, model)
    for loss in (fast, fused):
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        for name, gradient in gradients(loss, model).items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("shape", BOTH, ids=str)
def test_under_autocast_results_are_as_near_to_fp32_as_the_librarys(shape: Shape) -> None:
    model, (inputs, positions, labels) = build(shape), batch(rows=16)
    exact = library_logits(model, inputs, positions)
    exact_gradients = gradients(cross_entropy(exact, labels.flatten()), model)
    with torch.autocast("cpu", torch.bfloat16):
        library, fast = library_logits(model, inputs, positions), logits_at(model, inputs, positions)
        library_loss = cross_entropy(library.float(), labels.flatten())
        loss = loss_at(model, inputs, positions, labels)
    assert fast.dtype == torch.bfloat16 and loss.dtype == torch.float32
    assert error(fast, exact) < 1.3 * error(library, exact)
    assert gradient_error(gradients(loss, model), exact_gradients) < 1.3 * gradient_error(
        gradients(library_loss, model), exact_gradients
    )


def error(one: Tensor, other: Tensor) -> float:
    return ((one.float() - other).norm() / other.norm()).item()


def gradient_error(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    flat = [torch.cat([gradient.flatten() for gradient in of.values()]) for of in (one, other)]
    return error(*flat)


@both_attentions
@pytest.mark.parametrize("shape", BOTH, ids=str)
def test_dropout_acts_in_training_alone_and_as_in_the_library(shape: Shape, kind: str) -> None:
    model, (inputs, positions, _) = build(replace(shape, dropout=0.1), kind), batch(rows=2)
    with torch.no_grad():
        fast, library = (spread(forward, model, inputs, positions) for forward in (logits_at, library_logits))
        model.eval()
        torch.testing.assert_close(logits_at(model, inputs, positions), library_logits(model, inputs, positions))
        assert spread(logits_at, model, inputs, positions) == 0
    assert fast == pytest.approx(library, rel=0.05) and fast > 0


def spread(forward: Any, model: PreTrainedModel, inputs: Tensor, positions: Tensor) -> float:
    """Standard deviation of the logits over draws of dropout."""
    many = inputs.repeat(300, 1), positions.repeat(300, 1)
    logits = forward(model, *many)
    return logits.view(300, -1).var(0).mean().sqrt().item()


def test_evaluation_before_training_leaves_training_possible() -> None:
    attention.rotary_tables.cache_clear()
    model, (inputs, positions, labels) = build(SHAPES[0]), batch()
    with torch.inference_mode():
        loss_at(model, inputs, positions, labels)
    loss_at(model, inputs, positions, labels).backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_the_gradient_is_the_same_each_time_it_is_asked_for() -> None:
    model, (inputs, positions, labels) = build(SHAPES[0]), batch()
    loss = loss_at(model, inputs, positions, labels)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    once, again = (torch.autograd.grad(loss, weights, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_the_loss_of_a_hopeless_prediction_is_finite() -> None:
    model, (inputs, positions, labels) = build(SHAPES[1]), batch()
    with torch.no_grad():
        model.get_output_embeddings().bias[labels.flatten()] = -1e4  # type: ignore[union-attr, operator, index]
    loss = loss_at(model, inputs, positions, labels)
    assert torch.isfinite(loss) and all(torch.isfinite(g).all() for g in gradients(loss, model).values())


def test_what_has_no_fast_path_takes_the_librarys() -> None:
    bert = BertForMaskedLM(BertConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)).eval()
    sliding = build(SHAPES[0])
    sliding.config.layer_types = ["sliding_attention"] * 3
    inputs, positions, labels = batch()
    assert fast_path(bert) is None and fast_path(sliding) is None
    rows = torch.arange(len(inputs)).unsqueeze(1)
    expected = bert(input_ids=inputs).logits[rows, positions].flatten(0, 1)
    torch.testing.assert_close(logits_at(bert, inputs, positions), expected)
    loss = loss_at(bert, inputs, positions, labels)
    torch.testing.assert_close(loss, cross_entropy(expected, labels.flatten()))


@pytest.mark.parametrize("quantizer", [PerToken(8, symmetric=True), PerTensor(6, False, -1.0, 2.0)], ids=str)
@pytest.mark.parametrize("shape", BOTH, ids=str)
def test_the_fast_path_quantizes_inputs_as_the_library_modules_do(shape: Shape, quantizer: FakeQuantizer) -> None:
    model, (inputs, positions, labels) = build(shape).double(), batch()
    plain = logits_at(model, inputs, positions)
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    fake_quantize_inputs(model, dict.fromkeys(layers, StraightThrough(quantizer)))
    assert fast_path(model) is not None
    fast, library = logits_at(model, inputs, positions), library_logits(model, inputs, positions)
    torch.testing.assert_close(fast, library, rtol=0, atol=1e-6)
    assert not torch.allclose(fast, plain, atol=1e-3), "inputs are quantized"
    ours = gradients(loss_at(model, inputs, positions, labels), model)
    theirs = gradients(cross_entropy(library, labels.flatten()), model)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-6, msg=name)
    fake_quantize_inputs(model, dict.fromkeys(layers[:1], StraightThrough(quantizer)))
    fake_quantize_inputs(model, {})
    assert torch.equal(logits_at(model, inputs, positions), plain), "nothing is left behind"
