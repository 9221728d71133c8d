"""muP's coordinate check, and that its base model is the one without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression.layout.encoder import find_encoder
from trainlarge.config.optim import OptimConfig
from trainlarge.models.build import build_model
from trainlarge.models.families import FAMILIES
from trainlarge.models.family import Head
from trainlarge.models.forward import logits_at, loss_at
from trainlarge.models.shape import Shape, default_heads
from trainlarge.training.module import make_optimizer
from trainlarge.training.rules import init_std, peak_lr
from trainlarge.training.width import WidthScale, query_rows, query_steps, scale_initial_weights, scales

OPTIM = OptimConfig(lr=4e-3, base_width=64, lr_rule="mup", eps=1e-8)
WIDTHS = (64, 128, 256, 512)
STEPS = 5


def optim(rule: Any, **changes: Any) -> OptimConfig:
    return replace(OPTIM, lr_rule=rule, **changes)


def build(width: int, options: OptimConfig, family: str = "modern", heads: int | None = None) -> PreTrainedModel:
    shape = Shape(family, width, 2, heads or default_heads(width), 2.0, vocab_size=100, positions=20)
    model = build_model(shape, init_std=init_std(width), seed=0, attention="eager")
    scale_initial_weights(model, options)
    return model


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(4, 100, (16, 16), generator=generator)
    positions = torch.rand(16, 16, generator=generator).argsort(1)[:, :4]
    return inputs, positions, inputs.gather(1, positions)


def train(model: PreTrainedModel, options: OptimConfig, steps: int = STEPS) -> None:
    rate = peak_lr(options, model.config.hidden_size)
    optimizer = make_optimizer(model, replace(options, peak_lr=rate))
    parameters = dict(model.named_parameters())
    joint = [(parameters[name], scale.queries) for name, scale in scales(model, options).items() if scale.queries != 1]
    for _ in range(steps):
        loss_at(model, *batch()).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with query_steps(joint, rate * options.weight_decay):
            optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def activations(model: PreTrainedModel) -> dict[str, Tensor]:
    """The residual stream after the last layer, and how far the logits of the right tokens are above the mean."""
    inputs, positions, labels = batch()
    stream: list[Tensor] = []
    model.get_submodule(f"{find_encoder(model).layers}.1").register_forward_hook(
        lambda module, arguments, output: stream.append(output[0] if isinstance(output, tuple) else output)
    )
    model.base_model(input_ids=inputs)
    logits = logits_at(model, inputs, positions)
    return {"stream": stream[0], "margin": logits.gather(1, labels.view(-1, 1)) - logits.mean(1, keepdim=True)}


def changes(width: int, rule: str, family: str) -> dict[str, float]:
    """Mean absolute change of each activation over a few steps."""
    options = optim(rule)
    model = build(width, options, family)
    before = activations(model)
    train(model, options)
    return {name: (after - before[name]).abs().mean().item() for name, after in activations(model).items()}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_coordinate_check(family: str) -> None:
    growth = {}
    for rule in ("mup", "constant"):
        sizes = [changes(width, rule, family) for width in WIDTHS]
        growth[rule] = {name: sizes[-1][name] / sizes[0][name] for name in sizes[0]}
    # In BERT a norm follows each block and keeps the stream as small as it is.
    grown = 1.3 if family == "bert" else 3
    assert 0.9 < growth["mup"]["stream"] < 1.1 and growth["constant"]["stream"] > grown, growth
    # The random part of the logits falls as 1 / sqrt(width), what is learnt does not; the loss bounds it without muP.
    assert 0.5 < growth["mup"]["margin"] < 2, growth


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_base_model_is_that_of_the_constant_rate(family: str) -> None:
    models = []
    for rule in ("mup", "constant"):
        options = optim(rule, base_width=128)
        models.append(build(128, options, family))
        train(models[-1], options)
    assert all(torch.equal(one, other) for one, other in zip(*(m.state_dict().values() for m in models), strict=True))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_scores_are_scaled_through_the_queries(family: str) -> None:
    """Heads of 16 channels: 8 / d is twice 1 / sqrt(d), and steps of the queries are twice as large."""
    options = optim("mup", base_width=128, weight_decay=0.0)
    plain, scaled = build(128, optim("constant"), family, heads=8), build(128, options, family, heads=8)
    name = find_encoder(plain).heads[1].inputs[0]
    one, other = (m.get_submodule(name).weight for m in (plain, scaled))
    one, other = (query_rows(w) if family == "modern" else w for w in (one, other))
    torch.testing.assert_close(other, 2 * one)
    before = other.detach().clone()
    train(scaled, options, steps=1)
    # The first step of Adam is the rate, whatever the gradient.
    assert (other - before).abs().median().item() == pytest.approx(2 * options.lr, rel=0.02)


def test_the_output_gets_its_multiplier_through_the_norm() -> None:
    wide, base = build(256, optim("mup", base_width=128)), build(256, optim("constant"))
    ratio = wide.head.norm.weight / base.head.norm.weight  # type: ignore[union-attr]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.5))
    spread = [m.get_input_embeddings().weight.std().item() for m in (wide, build(128, optim("constant")))]  # type: ignore[union-attr]
    assert spread[0] == pytest.approx(spread[1], rel=0.05), "embeddings are as large as those of the base"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_labels_of_rows_get_the_multiplier_too(family: str) -> None:
    """As deviations and rates, against the base width: 1 / m of both in front of the logits, and nowhere twice."""
    shape = Shape(family, 256, 1, 4, 2.0, vocab_size=100, positions=20, labels=3)
    model = build_model(shape, init_std=0.02, seed=0, attention="eager", head=Head.SEQUENCE_LABEL)
    found, head = scales(model, optim("mup", base_width=64)), FAMILIES[family].head(Head.SEQUENCE_LABEL)
    output = found[f"{head.output}.weight"]
    if head.output_norm is None:
        assert output == WidthScale(initial=0.5, rate=0.25)
    else:
        assert output == WidthScale(initial=2) and found[f"{head.output_norm}.weight"] == WidthScale(
            initial=0.25, rate=0.25
        )
