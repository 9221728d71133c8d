"""The weights of a model: tied once, classified, checked, a snapshot."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, ResNetConfig, ResNetForImageClassification

from trainlarge.compression import Frequent, Magnitude, Recipe, Uniform, compress
from trainlarge.compression.model_tensors import load_weights
from trainlarge.compression.weights import Weights
from trainlarge.errors import UserError


def test_tied_tensors_come_once(model: PreTrainedModel) -> None:
    weights = Weights.of(model)
    assert sum(tensor.numel() for tensor in weights.tensors.values()) == model.num_parameters()
    assert list(weights.tensors) == [name for name in model.state_dict() if name in weights.tensors]


def test_embeddings_of_the_families(modern: PreTrainedModel, roberta: PreTrainedModel) -> None:
    assert Weights.of(modern).embeddings == {"model.embeddings.tok_embeddings.weight"}
    prefix = "roberta_prelayernorm.embeddings."
    names = {"word_embeddings", "position_embeddings", "token_type_embeddings"}
    assert Weights.of(roberta).embeddings == {f"{prefix}{name}.weight" for name in names}


def test_matrices_are_all_parameters_with_two_dimensions(model: PreTrainedModel) -> None:
    weights = Weights.of(model)
    assert weights.matrices == {name for name, tensor in weights.tensors.items() if tensor.ndim >= 2}
    assert set(weights.selected(embeddings=True)) == weights.matrices
    assert set(weights.selected(embeddings=False)) == weights.matrices - weights.embeddings


def test_a_plain_module(plainest: nn.Module) -> None:
    weights = Weights.of(plainest)
    assert weights.matrices == {"words.weight", "filter.weight"}
    assert weights.embeddings == {"words.weight"}
    assert weights.buffers == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert "out.weight" not in weights.tensors
    assert weights.config == {}


def test_snapshot_does_not_follow_the_model(plainest: nn.Module) -> None:
    weights = Weights.of(plainest)
    before = weights.tensors["words.weight"].clone()
    with torch.no_grad():
        plainest.words.weight.add_(1)
    assert torch.equal(weights.tensors["words.weight"], before)
    load_weights(plainest, weights.tensors)
    assert torch.equal(plainest.out.weight, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_named(plainest: nn.Module, bad: float) -> None:
    with torch.no_grad():
        plainest.filter.weight[2, 1, 0] = bad
    with pytest.raises(UserError, match=r"^weights\.filter\.weight=NaN or infinite values"):
        Weights.of(plainest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"other": torch.zeros(2)}, "weights.other="),
        (
            {"filter.bias": torch.zeros(9)},
            "weights.filter.bias=[9] is not valid: must be of shape [7], as in this model",
        ),
        ({"filter.bias": None}, "weights.filter.bias=missing"),
    ],
)
def test_weights_of_another_model(plainest: nn.Module, change: dict, message: str) -> None:
    tensors = {name: tensor + 1 for name, tensor in Weights.of(plainest).tensors.items()} | change
    before = plainest.words.weight.clone()
    with pytest.raises(UserError) as error:
        load_weights(plainest, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    assert str(error.value).startswith(message)
    assert torch.equal(plainest.words.weight, before)


def test_a_model_of_images_is_compressed_like_any_other() -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
    model = ResNetForImageClassification(config)
    assert Weights.of(model).tables is None
    compressed = compress(model, Recipe(Magnitude(0.5), Uniform(8)))
    assert compressed.sizes.parameters == model.num_parameters()
    with pytest.raises(UserError, match=r"^vocabulary.name=frequent=ResNet"):
        compress(model, Recipe(vocabulary=Frequent(9)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_model_of_weights_from_a_gpu_is_whole_on_the_cpu(model: PreTrainedModel) -> None:
    compressed = compress(model.cuda(), Recipe(quantize=Uniform(8)))
    smaller = compressed.model()
    assert {tensor.device.type for tensor in (*smaller.parameters(), *smaller.buffers())} == {"cpu"}
    assert torch.isfinite(smaller(torch.randint(3, 120, (2, 8))).logits).all()


def test_the_model_of_weights_has_buffers_of_its_own(model: PreTrainedModel) -> None:
    smaller, before = Weights.of(model).model(), dict(model.named_buffers())
    after = dict(smaller.named_buffers())
    assert after and all(torch.equal(buffer, before[name]) for name, buffer in after.items())
    assert not {buffer.data_ptr() for buffer in after.values()} & {buffer.data_ptr() for buffer in before.values()}
