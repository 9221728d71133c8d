"""``compress`` with a recipe that trains, on a model outside of any study."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Magnitude, Recipe, Retrain, TrainingData, Uniform, compress
from trainlarge.config.schema import ImplConfig
from trainlarge.errors import UserError

IMPL = ImplConfig(device="cpu", precision="fp32", threads=1)
RECIPE = Recipe(prune=Magnitude(0.6), recover=Retrain("20 steps", lr=1e-2))


def batch_of(step: int) -> dict[str, Tensor]:
    """Rows that repeat one token, which are easy to predict."""
    ids = torch.randint(4, 60, (8, 1), generator=torch.Generator().manual_seed(step)).repeat(1, 16)
    return {"input_ids": ids, "labels": ids}


@torch.no_grad()
def loss(model: torch.nn.Module) -> float:
    return float(model(**batch_of(99)).loss)


def test_any_hugging_face_model_is_retrained_on_given_batches(modern: PreTrainedModel) -> None:
    before = {name: tensor.clone() for name, tensor in modern.state_dict().items()}
    pruned = compress(modern, Recipe(prune=Magnitude(0.6)))
    data = TrainingData(batch_of, impl=IMPL, step_flops=7)
    compressed = compress(modern, RECIPE, training=data)
    assert loss(compressed.model()) < loss(pruned.model()) - 0.1
    for name in pruned.left.matrices:
        assert not compressed.weights[name][pruned.weights[name] == 0].any(), name
    assert compressed.training and (compressed.training.steps, compressed.training.flops) == (20, 140)
    assert all(torch.equal(tensor, before[name]) for name, tensor in modern.state_dict().items())
    again = compress(modern, RECIPE, training=data)
    assert all(torch.equal(tensor, compressed.weights[name]) for name, tensor in again.weights.items())


def test_a_recovered_model_is_quantized_afterwards(modern: PreTrainedModel) -> None:
    recover, data = Retrain("3 steps", lr=1e-3), TrainingData(batch_of, impl=IMPL)
    floats = compress(modern, Recipe(prune=Magnitude(0.6), recover=recover), training=data)
    codes = compress(modern, Recipe(prune=Magnitude(0.6), recover=recover, quantize=Uniform(8)), training=data)
    assert codes.sizes.ideal_bytes < 0.3 * floats.sizes.ideal_bytes
    for name in floats.left.matrices:
        torch.testing.assert_close(codes.weights[name], floats.weights[name], rtol=0, atol=0.01)


def test_what_training_needs_is_said_in_one_line(modern: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=r"^training=None.*TrainingData.*retrain trains"):
        compress(modern, RECIPE)
    for recover, key in ((Retrain("0.1 parent", lr=1e-3), "recover.budget"), (Retrain("5 steps"), "recover.lr")):
        with pytest.raises(UserError, match=f"^{key}=.*nothing is known of the training that made this model"):
            compress(modern, Recipe(recover=recover), training=TrainingData(batch_of, impl=IMPL))
