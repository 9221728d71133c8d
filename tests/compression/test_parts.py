"""What a recipe leaves of each matrix, and the line where that is nearly nothing of some."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from trainlarge.compression import LowRank, Magnitude, Recipe, Uniform, compress, load_packed, save_packed


class Uneven(nn.Module):
    """A table of large weights beside layers of small ones."""

    def __init__(self, zero: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.words, self.first, self.second = nn.Embedding(100, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        for layer, scale in ((self.words, 1.0), (self.first, 0.02), (self.second, 0.0 if zero else 0.02)):
            layer.weight.data = scale * torch.randn(layer.weight.shape, generator=generator)


def test_nearly_nothing_of_a_part_is_told() -> None:
    says = r"leaves 40 % of the weights of all matrices, 0 % of those outside the embeddings, and only 0 % of first"
    with pytest.warns(UserWarning, match=says):
        compressed = compress(Uneven(), Recipe(Magnitude(0.6, "global")))
    left = compressed.left_by_matrix
    assert left["first.weight"] == left["second.weight"] == 0 and left["words.weight"] > 0.4
    assert "prune.scope=tensor or row" in str(compressed.warning)
    assert compressed.nearly_lost == ["first.weight", "second.weight"]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        *(Recipe(Magnitude(share, scope)) for share, scope in ((0.6, "tensor"), (0.6, "row"), (0.97, "tensor"))),
        Recipe(Magnitude(0.6, "global", embeddings=False)),
        Recipe(quantize=Uniform(4)),
    ],
    ids=Recipe.describe,
)
@pytest.mark.parametrize("zero", [False, True])
def test_what_was_asked_for_is_not_told(recipe: Recipe, zero: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compressed = compress(Uneven(zero), recipe)
    assert compressed.warning is None and compressed.nearly_lost == []


def test_a_layer_that_quantization_rounds_to_zero_is_told() -> None:
    model = Uneven()
    model.first.weight.data[0, 0] = 50.0
    with pytest.warns(UserWarning, match=r"2 bit tensor leaves .* and only 1.6 % of first.weight; .*granularity=row"):
        compress(model, Recipe(quantize=Uniform(2, "tensor")))


def test_a_model_that_looks_at_a_matrix_itself_can_be_factorized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    compressed = compress(T5ForConditionalGeneration(T5Config(vocab_size=50, **shape)), Recipe(factorize=LowRank(0.5)))
    save_packed(tmp_path / "packed", compressed)
    ids = torch.arange(12).view(2, 6)
    models = compressed.model(), load_packed(tmp_path / "packed")
    assert torch.equal(*(model(input_ids=ids, decoder_input_ids=ids).logits for model in models))
