"""Sizes: the formula is the file; the paper's counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from trainlarge.compression import (
    Magnitude,
    MinMax,
    Outliers,
    Recipe,
    Uniform,
    Weights,
    compress,
    load_packed_weights,
    save_packed,
)

RECIPES = [
    Recipe(),
    Recipe(Magnitude(0.6, "global")),
    Recipe(quantize=Uniform(4)),
    Recipe(quantize=Uniform(3, "tensor", symmetric=True)),
    Recipe(Magnitude(0.75), Uniform(8)),
    Recipe(Magnitude(0.9, embeddings=False), Uniform(5, embeddings=False)),
]
by_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)


@by_recipe
@pytest.mark.parametrize("parent", ["", "0123456789ab", "x" * 64])
def test_formula_is_the_real_file_size(model: PreTrainedModel, recipe: Recipe, parent: str, tmp_path: Path) -> None:
    compressed = compress(model, recipe)
    save_packed(tmp_path / "packed.safetensors", compressed, parent)
    assert compressed.sizes.file_bytes == (tmp_path / "packed.safetensors").stat().st_size


@by_recipe
def test_file_without_embeddings_lacks_their_payload(model: PreTrainedModel, recipe: Recipe, tmp_path: Path) -> None:
    compressed, path = compress(model, recipe), tmp_path / "packed.safetensors"
    save_packed(path, compressed)
    names = Weights.of(model).embeddings
    with safe_open(path, framework="pt") as file:
        payload = [file.get_tensor(name).nbytes for name in file.keys() if name.partition(":")[0] in names]  # noqa: SIM118
    assert compressed.sizes.file_bytes_without_embeddings == compressed.sizes.file_bytes - sum(payload)


@pytest.mark.parametrize(
    "recipe", [*RECIPES, Recipe(Magnitude(0.5), MinMax(3)), Recipe(quantize=Outliers(3))], ids=Recipe.describe
)
def test_entropy_coding_changes_bytes_alone(model: PreTrainedModel, recipe: Recipe, tmp_path: Path) -> None:
    plain, coded = compress(model, recipe), compress(model, replace(recipe, entropy_coding="zstd"))
    save_packed(tmp_path / "packed", coded)
    assert coded.sizes.file_bytes == (tmp_path / "packed").stat().st_size == plain.coded_bytes[0]
    assert coded.sizes.file_bytes <= plain.sizes.file_bytes
    assert coded.sizes.file_bytes_without_embeddings == plain.coded_bytes[1] <= plain.sizes.file_bytes
    loaded = load_packed_weights(tmp_path / "packed")
    assert all(torch.equal(loaded[name], weight) for name, weight in plain.weights.items())


@pytest.mark.parametrize(
    ("recipe", "share"),
    [
        (Recipe(quantize=Uniform(3)), 0.9),
        (Recipe(Magnitude(0.5), MinMax(4)), 0.95),
        (Recipe(quantize=Outliers(4)), 0.93),
    ],
    ids=str,
)
def test_entropy_coding_saves_bytes_of_normal_weights(recipe: Recipe, share: float, tmp_path: Path) -> None:
    layer = nn.Linear(512, 256)
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    plain, coded = compress(layer, recipe), compress(layer, replace(recipe, entropy_coding="zstd"))
    assert coded.sizes.file_bytes < share * plain.sizes.file_bytes
    save_packed(tmp_path / "packed", coded)
    assert coded.sizes.file_bytes == (tmp_path / "packed").stat().st_size
    assert torch.equal(load_packed_weights(tmp_path / "packed")["weight"], plain.weights["weight"])


def test_parameters_are_those_of_the_model(model: PreTrainedModel) -> None:
    sizes = compress(model, Recipe(Magnitude(0.6), Uniform(4))).sizes
    embedded = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding))
    assert sizes.parameters == model.num_parameters()
    assert sizes.parameters_without_embeddings == model.num_parameters() - embedded


def test_nonzero_parameters_are_those_that_pruning_left(modern: PreTrainedModel) -> None:
    weights = Weights.of(modern)
    matrices = sum(weights.tensors[name].numel() for name in weights.matrices)
    dense, half = compress(modern, Recipe()).sizes, compress(modern, Recipe(Magnitude(0.5, "global"))).sizes
    natural_zeros = int((modern.get_input_embeddings().weight == 0).sum())
    assert dense.nonzero_parameters - half.nonzero_parameters == round(0.5 * matrices) - natural_zeros
    assert compress(modern, Recipe(Magnitude(0.5, "global"), Uniform(2))).sizes.nonzero_parameters == (
        half.nonzero_parameters
    )


def test_ideal_bytes_are_bits_times_nonzero_and_full_vectors(plainest: nn.Module) -> None:
    vectors, matrices, conv = 7 + 7 + 7 + 13, 13 * 5 + 7 * 5 * 3, 7 * 5 * 3
    assert compress(plainest, Recipe()).sizes.ideal_bytes == 4 * (vectors + matrices)
    assert compress(plainest, Recipe(quantize=Uniform(4))).sizes.ideal_bytes == 4 * vectors + matrices * 4 // 8
    both = compress(plainest, Recipe(Magnitude(0.6, "global"), Uniform(4))).sizes
    assert both.ideal_bytes == 4 * vectors + (matrices - round(0.6 * matrices)) * 4 // 8
    assert compress(plainest, Recipe(quantize=Uniform(8))).sizes.ideal_bytes_without_embeddings == 4 * vectors + conv


def test_smaller_recipes_make_smaller_files(model: PreTrainedModel) -> None:
    recipes = [Recipe(), Recipe(Magnitude(0.6)), Recipe(quantize=Uniform(8)), Recipe(quantize=Uniform(4, "tensor"))]
    sizes = [compress(model, recipe).sizes.file_bytes for recipe in recipes]
    assert sizes == sorted(sizes, reverse=True)
