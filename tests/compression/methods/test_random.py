"""Random pruning: exact counts, nested, one stream of numbers, independent of the weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from trainlarge.compression.methods.random import random
from trainlarge.compression.registry import Shared
from trainlarge.config.prune import Random

sparsities = st.floats(0, 1, exclude_max=True)


def zeros(method: Random, shapes: list[tuple[int, int]]) -> list[Tensor]:
    tensors = {f"m{i}": torch.ones(shape) for i, shape in enumerate(shapes)}
    return [form.dense() == 0 for form in random(method, tensors, Shared()).values()]


@given(sparsities, st.integers(1, 9), st.integers(1, 9))
def test_as_many_weights_as_torch_prunes(sparsity: float, rows: int, columns: int) -> None:
    [found] = zeros(Random(sparsity), [(rows, columns)])
    layer = prune.random_unstructured(nn.Linear(columns, rows), "weight", amount=sparsity)
    assert int(found.sum()) == int((layer.weight_mask == 0).sum())


@given(sparsities, sparsities, st.integers(0, 5))
def test_masks_are_nested(one: float, other: float, seed: int) -> None:
    less, more = (zeros(Random(sparsity, seed), [(20, 20)])[0] for sparsity in sorted([one, other]))
    assert bool((more | ~less).all())


def test_matrices_and_seeds_differ() -> None:
    first, second = zeros(Random(0.5), [(30, 30), (30, 30)])
    [other] = zeros(Random(0.5, seed=1), [(30, 30)])
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_share_is_lost_even_of_weights_drawn_from_the_same_seed() -> None:
    weights = torch.randn((500, 500), generator=torch.Generator().manual_seed(0))
    pruned = random(Random(0.3), {"w": weights}, Shared())["w"].dense()
    assert float((weights - pruned).square().sum() / weights.square().sum()) == pytest.approx(0.3, rel=0.02)
