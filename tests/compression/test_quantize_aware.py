"""Training that is aware of the quantization to come: gradients, what is stored in the end, and learned scales."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Magnitude, Recipe, Retrain, TrainingData, compress
from trainlarge.compression.fake_quantization import QuantizeWeights
from trainlarge.compression.registry import _MODIFIERS, _import_homes
from trainlarge.config.impl import ImplConfig
from trainlarge.config.method import METHODS, Method
from trainlarge.config.optim import OptimConfig
from trainlarge.config.quantize import Binary, MinMax, Ternary, Uniform
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
    recipe = Recipe(prune=Magnitude(0.3), recover=AWARE, quantize=quantize)
    compressed = compress(modern, recipe, training=data())
    changed = 0
    for name, tensor in compressed.weights.items():
        assert torch.equal(tensor.view(torch.int32), computed_with[name].view(torch.int32)), name
        changed += not torch.equal(tensor, modern.state_dict()[name])
    assert changed > 10 and set(compressed.weights) <= set(computed_with)


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
