"""Every method on real models: the file is exact, its size is known, zeros survive, a grid changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression import Recipe, Weights, compress, compress_grid, load_packed_weights, save_packed
from trainlarge.compression.calibration import Calibration
from trainlarge.config.method import Calibrated
from trainlarge.config.prune import Magnitude, Random, SparseGPT, Wanda
from trainlarge.config.quantize import GPTQ, Binary, KMeans, LowRankRepair, MinMax, Mixed, Outliers, Ternary, Uniform

PRUNES = [
    None,
    Magnitude(0.5, "row"),
    Magnitude(0.5, "block", 4),
    Random(0.95),
    Wanda(0.75, m=8),
    SparseGPT(0.6, embeddings=False),
]
QUANTIZES = [
    None,
    Uniform(4, "group", group_size=10, range="mse"),
    Uniform(3, symmetric=True, range="percentile"),
    Outliers(3, share=0.02),
    GPTQ(3, "group", group_size=10),
    LowRankRepair(3, rank=2, rounds=2),
    GPTQ(3, tied=True, range="sigma", sigma=2.0, embedding_sigma=3.0),
    Mixed(3.5),
    Mixed(3.5, sensitivity="model"),
    MinMax(3),
    MinMax(4, "group", 10, embeddings=False),
    MinMax(2, "tensor"),
    KMeans(3),
    KMeans(2, "row", embeddings=False),
    Ternary("group", 10),
    Binary("row"),
]
RECIPES = [
    *(Recipe(prune) for prune in PRUNES),
    *(Recipe(None, quantize) for quantize in QUANTIZES[1:]),
    *(Recipe(PRUNES[1], quantize) for quantize in QUANTIZES[1:]),
    *(Recipe(prune, QUANTIZES[1]) for prune in PRUNES[2:]),
]
by_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)
BATCHES = [{"input_ids": torch.randint(3, 120, (4, 12), generator=torch.Generator().manual_seed(0))}]


@by_recipe
def test_the_file_holds_the_evaluated_weights_in_the_announced_bytes(
    modern: PreTrainedModel, recipe: Recipe, tmp_path: Path
) -> None:
    compressed = compress(modern, recipe, calibration=BATCHES)
    save_packed(tmp_path / "packed", compressed)
    assert (tmp_path / "packed").stat().st_size == compressed.sizes.file_bytes
    _assert_same(load_packed_weights(tmp_path / "packed"), compressed.weights)


@pytest.mark.parametrize("recipe", [each for each in RECIPES if each.prune and each.quantize], ids=Recipe.describe)
def test_pruned_weights_stay_zero(roberta: PreTrainedModel, recipe: Recipe) -> None:
    pruned, both = (compress(roberta, each, calibration=BATCHES) for each in (Recipe(recipe.prune), recipe))
    assert all(bool((both.weights[name][tensor == 0] == 0).all()) for name, tensor in pruned.weights.items())
    assert both.sizes.nonzero_parameters == pruned.sizes.nonzero_parameters


def test_a_grid_gives_what_each_recipe_gives_alone(modern: PreTrainedModel) -> None:
    weights, recipes = Weights.of(modern), RECIPES[::3]
    grid = dict(compress_grid(weights, recipes, Calibration(weights, modern, lambda: BATCHES)))
    for position, recipe in enumerate(recipes):
        _assert_same(grid[position].weights, compress(modern, recipe, calibration=BATCHES).weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("recipe", [Recipe(Wanda(0.5), quantize) for quantize in QUANTIZES[::2]], ids=Recipe.describe)
def test_other_data_types(modern: PreTrainedModel, recipe: Recipe, dtype: torch.dtype, tmp_path: Path) -> None:
    compressed = compress(modern.to(dtype), recipe, calibration=BATCHES)
    save_packed(tmp_path / "packed", compressed)
    assert {tensor.dtype for tensor in compressed.weights.values()} == {dtype}
    _assert_same(load_packed_weights(tmp_path / "packed"), compressed.weights)


@pytest.mark.parametrize("prune", [None, Magnitude(0.5, "row"), Random(0.95)])
@pytest.mark.parametrize("quantize", [each for each in QUANTIZES if not isinstance(each, Calibrated)])
def test_convolutions_and_odd_shapes(
    plainest: nn.Module, prune: Magnitude | None, quantize: Uniform | None, tmp_path: Path
) -> None:
    compressed = compress(plainest, Recipe(prune, quantize))
    save_packed(tmp_path / "packed", compressed)
    assert (tmp_path / "packed").stat().st_size == compressed.sizes.file_bytes
    _assert_same(load_packed_weights(tmp_path / "packed"), compressed.weights)


def _assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit by bit: the sign of a zero counts."""
    assert set(one) == set(other)
    for name, tensor in other.items():
        assert (one[name].dtype, one[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(one[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name
