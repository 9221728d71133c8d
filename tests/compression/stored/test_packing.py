"""Packed files: what is loaded is bit by bit what was evaluated; self-contained; clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression import (
    Compressed,
    Magnitude,
    Recipe,
    Uniform,
    compress,
    load_packed,
    load_packed_weights,
    save_packed,
)
from trainlarge.compression.stored.packing import packed_header
from trainlarge.errors import UserError

RECIPES = [
    Recipe(prune, quantize)
    for prune in (None, Magnitude(0.6), Magnitude(0.3, "global", embeddings=False))
    for quantize in (None, Uniform(2, "tensor"), Uniform(3), Uniform(4, symmetric=True), Uniform(7, embeddings=False))
]
by_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "packed.safetensors"


@by_recipe
def test_loaded_weights_are_the_evaluated_ones(model: PreTrainedModel, recipe: Recipe, path: Path) -> None:
    compressed = compress(model, recipe)
    save_packed(path, compressed)
    _assert_same_bits(load_packed_weights(path), compressed.weights)


@by_recipe
def test_a_loaded_model_gives_the_logits_of_the_evaluated_one(
    model: PreTrainedModel, recipe: Recipe, path: Path
) -> None:
    save_packed(path, compress(model, recipe, inplace=True))
    loaded = load_packed(path)
    tokens = torch.randint(3, 120, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight


def test_a_model_in_half_precision(modern: PreTrainedModel, path: Path) -> None:
    compressed = compress(modern.bfloat16(), Recipe(Magnitude(0.3), Uniform(4)))
    save_packed(path, compressed)
    assert load_packed(path).dtype == torch.bfloat16
    _assert_same_bits(compress(load_packed(path), Recipe()).weights, compressed.weights)


def test_a_plain_module_is_loaded_into_one(plainest: nn.Module, path: Path) -> None:
    plainest.norm.num_batches_tracked.fill_(5)
    compressed = compress(plainest, Recipe(Magnitude(0.5), Uniform(4)))
    save_packed(path, compressed)
    fresh = load_packed(path, type(plainest)())
    assert int(fresh.norm.num_batches_tracked) == 5
    _assert_same_bits(compress(fresh, Recipe()).weights, compressed.weights)
    with pytest.raises(UserError, match="for Plainest pass the model"):
        load_packed(path)


def test_a_file_of_another_model(modern: PreTrainedModel, roberta: PreTrainedModel, path: Path) -> None:
    save_packed(path, compress(modern, Recipe(quantize=Uniform(4))))
    with pytest.raises(UserError, match=r"^packed=.*packed.safetensors .* a file that fits \(weights\."):
        load_packed(path, roberta)


def test_loading_draws_no_random_numbers(modern: PreTrainedModel, path: Path) -> None:
    save_packed(path, compress(modern, Recipe()))
    before = torch.get_rng_state()
    load_packed(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_header(modern: PreTrainedModel, path: Path) -> None:
    recipe = Recipe(Magnitude(0.6), Uniform(4))
    save_packed(path, compress(modern, recipe), parent="0123456789ab")
    header = packed_header(path)
    assert header.parent == "0123456789ab"
    assert Recipe.from_json(header.recipe) == recipe
    assert header.architecture == "ModernBertForMaskedLM"
    assert header.config["hidden_size"] == 24


@pytest.mark.parametrize("parent", ["x" * 65, "é"])
def test_parent_that_does_not_fit(plainest: nn.Module, path: Path, parent: str) -> None:
    with pytest.raises(UserError, match=r"^parent="):
        save_packed(path, compress(plainest, Recipe()), parent)


def test_where_the_checkpoint_lies_does_not_change_the_file(modern: PreTrainedModel, tmp_path: Path) -> None:
    files = []
    for name in ("a", "a much longer folder name"):
        modern.save_pretrained(tmp_path / name)
        loaded = type(modern).from_pretrained(tmp_path / name)
        save_packed(tmp_path / "packed", compress(loaded, Recipe(quantize=Uniform(4))))
        files.append((tmp_path / "packed").read_bytes())
    assert files[0] == files[1]


def test_a_flipped_bit_and_a_missing_end(modern: PreTrainedModel, path: Path) -> None:
    save_packed(path, compress(modern, Recipe(quantize=Uniform(4))))
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 16]) + content[-8:])
    with pytest.raises(UserError, match="checksum"):
        load_packed(path)
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match="truncated"):
        load_packed_weights(path)


def test_an_error_while_encoding_leaves_the_old_file(plainest: nn.Module, path: Path) -> None:
    compressed = compress(plainest, Recipe())
    save_packed(path, compressed)
    old = path.read_bytes()
    broken = _with_complex_weight(compressed)
    with pytest.raises(UserError, match="complex64"):
        save_packed(path, broken)
    assert path.read_bytes() == old


def _with_complex_weight(compressed: Compressed) -> Compressed:
    from dataclasses import replace

    from trainlarge.compression.stored.dense import Dense

    stored = {**compressed.packed.stored, "norm.weight": Dense(torch.zeros(7, dtype=torch.complex64))}
    return replace(compressed, packed=replace(compressed.packed, stored=stored))


def _assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    for name, tensor in other.items():
        assert one[name].dtype == tensor.dtype
        assert one[name].shape == tensor.shape
        assert bytes(one[name].reshape(-1).view(torch.uint8).numpy()) == bytes(
            tensor.reshape(-1).view(torch.uint8).numpy()
        )
