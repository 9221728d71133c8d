"""A method from outside: one dataclass and one function take part in recipes, grids and packed files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Magnitude, Recipe, compress, load_packed_weights, registry, save_packed
from trainlarge.compression.registry import Shared, action_of, applies
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.method import METHODS, MatrixMethod, method


@dataclass(frozen=True)
class Trio(MatrixMethod):
    """w' = mean |w| of the kept weights * sign(w), 0 below a threshold (0.7 mean |w|)."""


@pytest.fixture
def trio() -> Iterator[type[MatrixMethod]]:
    """The method is known during one test only."""
    method("quantize", "trio")(Trio)
    applies(Trio)(_trio)
    yield Trio
    del METHODS["quantize"]["trio"], registry._ACTIONS[Trio]


def test_a_new_method_needs_no_change_elsewhere(
    trio: type[MatrixMethod], modern: PreTrainedModel, tmp_path: Path
) -> None:
    recipe = Recipe(Magnitude(0.5), trio())
    assert (
        Recipe.from_json(recipe.to_json())
        == recipe
        == Recipe.from_config({"name": "magnitude", "sparsity": 0.5}, {"name": "trio"})
    )
    compressed = compress(modern, recipe)
    save_packed(tmp_path / "packed", compressed)
    assert (tmp_path / "packed").stat().st_size == compressed.sizes.file_bytes
    for name, tensor in load_packed_weights(tmp_path / "packed").items():
        assert torch.equal(tensor, compressed.weights[name])
        assert tensor.ndim < 2 or len(tensor.unique()) <= 3


def test_a_method_that_is_only_described() -> None:
    with pytest.raises(LookupError, match="Trio"):
        action_of(Trio())


def test_once_computes_once() -> None:
    shared, calls = Shared(), []
    results = [shared.once("key", lambda: calls.append(1) or len(calls)) for _ in range(3)]
    assert (results, calls) == ([1, 1, 1], [1])


def _trio(method: Trio, tensors: Mapping[str, Tensor], shared: Shared) -> dict[str, StoredTensor]:
    return {name: _rounded(tensor) for name, tensor in tensors.items()}


def _rounded(tensor: Tensor) -> Affine:
    kept = tensor.abs() > 0.7 * tensor.abs().mean()
    codes = (tensor.sign() * kept + 1).to(torch.uint8)
    return Affine(
        codes=codes,
        scale=tensor[kept].abs().mean().view(1, 1),
        zero_point=torch.ones((1, 1), dtype=torch.uint8),
        bits=2,
        dtype=tensor.dtype,
        nonzero=int(torch.count_nonzero(tensor)),
    )
