"""Training that is aware of the quantization to come: gradients, what is stored in the end, and learned scales."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Magnitude, Recipe, Retrain, TrainingData, compress
from trainlarge.compression.fake_quantization import QuantizeWeights
from trainlarge.compression.methods.uniform import fake_quantize as fake_quantize_matrix
from trainlarge.compression.methods.uniform_in_training import SEARCH_EVERY, LearnedScales, SearchedRange
from trainlarge.compression.registry import _MODIFIERS, _import_homes
from trainlarge.config.activations import Dynamic, Static
from trainlarge.config.impl import ImplConfig
from trainlarge.config.method import METHODS, Method
from trainlarge.config.optim import OptimConfig
from trainlarge.config.quantize import GPTQ, Binary, MinMax, Ternary, Uniform
from trainlarge.config.structure import Heads
from trainlarge.errors import UserError
from trainlarge.models.fake_quantize import PerTensor, PerToken, StraightThrough, fake_quantize
from trainlarge.training.loop import Loop

IMPL = ImplConfig(device="cpu", precision="fp32", threads=1)
AWARE = Retrain("3 steps", lr=1e-2, quantize_aware=1.0)
METHODS_IN_TRAINING = [
    Uniform(4),
    Uniform(2, "tensor"),
    Uniform(3, "group", group_size=10),
    Uniform(4, symmetric=True),
    Uniform(4, range="mse"),
    Uniform(4, range="percentile", percentile=90.0),
    Uniform(4, embeddings=False),
    Uniform(3, embedding_bits=8),
    Uniform(3, range="learned"),
    Uniform(4, "group", group_size=10, range="learned", symmetric=True),
    MinMax(3),
    MinMax(4, "group", group_size=10),
    Ternary(),
    Ternary("row"),
    Binary(),
    Binary("group", group_size=10),
]


def batch_of(step: int) -> dict[str, Tensor]:
    """Rows that repeat one token, which are easy to predict."""
    ids = torch.randint(4, 60, (8, 1), generator=torch.Generator().manual_seed(step)).repeat(1, 16)
    return {"input_ids": ids, "labels": ids}


def data(**optim: Any) -> TrainingData:
    return TrainingData(batch_of, optim=OptimConfig(**optim), impl=IMPL)


@pytest.fixture
def computed_with(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What the model would compute with after the last step: filled when a training is over."""
    found: dict[str, Tensor] = {}
    finish = Loop.finish

    def noted(loop: Loop) -> None:
        found.update({name: tensor.detach().clone() for name, tensor in loop.module.model.state_dict().items()})
        finish(loop)

    monkeypatch.setattr(Loop, "finish", noted)
    return found


@pytest.mark.parametrize("quantize", METHODS_IN_TRAINING, ids=lambda method: method.describe())
def test_what_is_stored_is_what_training_computed_with_last(
    modern: PreTrainedModel, quantize: Method, computed_with: dict[str, Tensor]
) -> None:
    # Ranges that are searched for are searched after the last step only where that is the turn.
    is_searched = getattr(quantize, "range", None) in ("mse", "percentile")
    recover = replace(AWARE, budget=f"{SEARCH_EVERY} steps") if is_searched else AWARE
    compressed = compress(modern, Recipe(prune=Magnitude(0.3), recover=recover, quantize=quantize), training=data())
    changed = 0
    for name, tensor in compressed.weights.items():
        assert torch.equal(tensor.view(torch.int32), computed_with[name].view(torch.int32)), name
        changed += not torch.equal(tensor, modern.state_dict()[name])
    assert changed > 10 and set(compressed.weights) <= set(computed_with)


def test_a_searched_range_is_held_between_searches_and_resumes_with_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn((6, 25), generator=generator) for _ in range(2 * SEARCH_EVERY)]

    def rounded(draws: list[Tensor], method: Uniform, before: SearchedRange | None = None) -> list[Tensor]:
        quantizer = SearchedRange(method)
        if before is not None:
            quantizer.restore(before.state())
        results = [quantizer.rounded(draw) for draw in draws]
        kept.append(quantizer)
        return results

    for method in (Uniform(3, range="mse"), Uniform(4, "group", group_size=10, range="percentile")):
        kept: list[SearchedRange] = []
        whole = rounded(draws, method)
        searched = [
            torch.equal(one, fake_quantize_matrix(draw, method)[0]) for one, draw in zip(whole, draws, strict=True)
        ]
        assert searched == [index % SEARCH_EVERY == 0 for index in range(len(draws))]
        for stop in (1, 5, SEARCH_EVERY, SEARCH_EVERY + 1):
            rounded(draws[:stop], method)
            # What was rounded last is rounded again.
            resumed = rounded(draws[stop - 1 :], method, before=kept[-1])
            assert all(map(torch.equal, resumed, whole[stop - 1 :]))


def test_every_method_that_says_so_acts_while_a_model_trains() -> None:
    _import_homes()
    says_so = {kind for methods in METHODS.values() for kind in methods.values() if kind.while_training}
    assert says_so == set(_MODIFIERS)


@pytest.mark.parametrize(
    "quantize", [Uniform(3), Uniform(3, symmetric=True), Uniform(4, "group", group_size=10, range="percentile")]
)
def test_the_gradient_is_the_same_inside_the_range_and_0_outside(quantize: Uniform) -> None:
    generator = torch.Generator().manual_seed(0)
    weights, gradient = torch.randn((6, 25), generator=generator), torch.randn((6, 25), generator=generator)
    parameter = torch.nn.Parameter(weights.clone())
    modifier = modifier_for(quantize)
    model = torch.nn.Module()
    model.weight = parameter
    modifier.start(model)
    rounded = parameter.detach().clone()
    parameter.grad = gradient.clone()
    modifier.before_step(0, model)
    assert torch.equal(parameter, weights)
    for row in range(6):
        size = quantize.group_size or 25
        for start in range(0, 25, size):
            values, codes = weights[row, start : start + size], rounded[row, start : start + size].unique()
            ends = float(codes.min()), float(codes.max())
            scale = min(float(gap) for gap in codes.diff()) if len(codes) > 1 else math.inf
            for column, value in enumerate(values.tolist(), start):
                is_inside = ends[0] - scale / 2 < value < ends[1] + scale / 2
                assert parameter.grad[row, column] == (gradient[row, column] if is_inside else 0.0)


def modifier_for(quantize: Uniform) -> QuantizeWeights:
    from trainlarge.compression.methods.uniform_in_training import _quantizer

    return QuantizeWeights({"weight": (torch.float32, _quantizer(quantize))}, begins=0, first_step=0)


LEARNED = [
    Uniform(3, range="learned"),
    Uniform(2, "tensor", range="learned", symmetric=True),
    Uniform(4, "group", group_size=10, range="learned"),
]


@pytest.mark.parametrize("method", LEARNED, ids=lambda method: method.granularity)
def test_gradients_of_learned_scales_are_those_of_the_paper(method: Uniform) -> None:
    """Equations 2 and 3 of LSQ, weight by weight, and the gradient's scale 1 / sqrt(n Q_p)."""
    generator = torch.Generator().manual_seed(0)
    weights, gradient = torch.randn((4, 25), generator=generator), torch.randn((4, 25), generator=generator)
    lowest, highest = (-1, 1) if method.symmetric else (-(2 ** (method.bits - 1)), 2 ** (method.bits - 1) - 1)
    quantizer = LearnedScales(method)
    log_scales = quantizer.start(weights)
    log_scales.data += 0.1
    groups = {"tensor": [(slice(4), slice(25))], "row": [(slice(row, row + 1), slice(25)) for row in range(4)]}.get(
        method.granularity,
        [(slice(row, row + 1), slice(at, at + 10)) for row in range(4) for at in (0, 10, 20)],
    )
    of_weights = gradient.clone()
    rounded = quantizer.rounded(weights)
    quantizer.to_unrounded(of_weights, weights)
    for group, log_scale, of_scale in zip(groups, log_scales.tolist(), log_scales.grad.tolist(), strict=True):
        values, scale = weights[group].flatten().tolist(), math.exp(log_scale)
        start = 2 * sum(map(abs, values)) / len(values) / math.sqrt(highest)
        assert math.log(start) + 0.1 == pytest.approx(log_scale, abs=1e-5)
        total = 0.0
        for value, slope, passed, result in zip(
            values,
            gradient[group].flatten().tolist(),
            of_weights[group].flatten(),
            rounded[group].flatten(),
            strict=True,
        ):
            ratio = value / scale
            is_inside = lowest <= ratio <= highest
            code = min(max(round(ratio), lowest), highest)
            assert float(result) == pytest.approx(code * scale, abs=1e-6)
            assert float(passed) == pytest.approx(slope if is_inside else 0.0)
            total += slope * (code - ratio if is_inside else code)
        expected = total / math.sqrt(len(values) * highest)
        assert of_scale == pytest.approx(scale * expected, rel=1e-4, abs=1e-5), "of log s: s times that of s"


def test_learned_scales_stay_positive_without_weight_decay_and_leave_no_parameter(modern: PreTrainedModel) -> None:
    """At a rate of 0, only weight decay could change anything; at a large one a plain scale would turn negative."""
    quantize = Uniform(2, range="learned")
    names = set(modern.state_dict())
    for lr in (1e-12, 0.5):
        recipe = Recipe(recover=Retrain("4 steps", lr=lr, quantize_aware=1.0), quantize=quantize)
        compressed = compress(modern, recipe, training=data(weight_decay=0.9))
        assert set(compressed.weights) <= names
        for name in compressed.left.matrices:
            stored = compressed.packed.stored[name]
            assert bool((stored.scale > 0).all())
            if lr < 1e-6:
                start = 2 * modern.state_dict()[name].abs().mean(1, keepdim=True)
                torch.testing.assert_close(stored.scale[start > 0], start[start > 0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "quantizer", [PerToken(8, True), PerTensor(4, True, -0.5, 1.0), PerTensor(4, False, -0.3, 1.0)]
)
def test_gradients_pass_straight_through_the_rounding_of_inputs(quantizer: PerToken | PerTensor) -> None:
    inputs = torch.randn((5, 16), generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    outputs = StraightThrough(quantizer)(inputs)
    assert torch.equal(outputs, quantizer(inputs.detach()))
    outputs.backward(torch.full_like(inputs, 3.0))
    if isinstance(quantizer, PerToken):
        assert torch.equal(inputs.grad, torch.full_like(inputs, 3.0)), "a token's own range holds all of it"
        return
    ends = fake_quantize(
        torch.tensor([-9.0, 9.0]), *map(torch.tensor, (quantizer.lowest, quantizer.highest)), 4, quantizer.symmetric
    )
    half = float(ends[1] - ends[0]) / (14 if quantizer.symmetric else 15) / 2
    is_inside = (inputs > ends[0] - half) & (inputs < ends[1] + half)
    assert 0 < int(is_inside.sum()) < inputs.numel()
    assert torch.equal(inputs.grad, 3.0 * is_inside)


@pytest.mark.parametrize("activations", [Dynamic(8), Static(4, symmetric=False)], ids=lambda method: method.name)
def test_inputs_are_rounded_in_training_as_in_the_result(
    modern: PreTrainedModel, activations: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a last step at a rate of 0 is that of the compressed model on the same batch."""
    last: list[float] = []
    run = Loop.run

    def noted(loop: Loop, start: int, stop: int, rate: Callable[[int], float], observer: Any) -> None:
        def observe(step: int, loss: Tensor) -> None:
            last.append(float(loss))
            observer(step, loss)

        run(loop, start, stop, lambda step: rate(step) if step < stop - 1 else 0.0, observe)

    monkeypatch.setattr(Loop, "run", noted)
    recover = Retrain("4 steps", lr=1e-2, quantize_aware=0.75)
    recipe = Recipe(recover=recover, quantize=Uniform(4), activations=activations)
    compressed = compress(modern, recipe, calibration=[batch_of(77)], training=data())
    with torch.no_grad():
        loss = float(compressed.model()(**batch_of(3)).loss)
        plain = compress(modern, Recipe(recover=Retrain("4 steps", lr=1e-2)), training=data()).model()
    assert last[3] == pytest.approx(loss, abs=1e-6)
    assert last[0] == pytest.approx(last[4], abs=1e-6), "the first step is not aware yet"
    assert not torch.equal(next(plain.parameters()), next(compressed.model().parameters()))


def test_a_share_of_the_steps_is_aware() -> None:
    assert [Retrain(quantize_aware=share).aware_steps(10) for share in (0, 0.01, 0.25, True)] == [0, 1, 2, 10]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"recover": AWARE}, r"^recover\.quantize_aware=1\.0 is not valid: must be 0 where no step of quantize"),
        (
            {"recover": AWARE, "quantize": GPTQ(4)},
            r"^recover\.quantize_aware=1\.0 .* 0 with quantize\.name=gptq; above 0 with",
        ),
        (
            {
                "recover": AWARE,
                "quantize": Uniform(4),
                "structure": Heads(0.5),
                "order": ("recover", "structure", "quantize"),
            },
            r"^recover\.quantize_aware=1\.0 .* 0 where structure comes after recover",
        ),
        ({"quantize": Uniform(4, range="learned")}, r"^quantize\.range=learned .* without recover\.quantize_aware"),
        (
            {"recover": AWARE, "quantize": Uniform(4, range="learned"), "order": ("quantize", "recover")},
            r"^(quantize\.range|recover\.quantize_aware)=",
        ),
    ],
)
def test_what_cannot_be_trained_with_is_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**recipe)
