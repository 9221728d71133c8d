"""Magnitude pruning: exact counts, nested masks, closed forms, torch's own pruning as oracle."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune

from trainlarge.compression.methods.magnitude import magnitude
from trainlarge.compression.registry import Shared
from trainlarge.config.prune import Magnitude
from trainlarge.models.weight_error import relative_squared_error

# Few distinct values, so that ties are everywhere, and zeros of both signs.
values = st.sampled_from([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0])
matrices = st.lists(st.lists(values, min_size=3, max_size=3), min_size=1, max_size=6).map(torch.tensor)
groups = st.lists(matrices, min_size=1, max_size=4).map(lambda found: {f"m{i}": m for i, m in enumerate(found)})
sparsities = st.floats(0, 1, exclude_max=True)
scopes = st.sampled_from(["global", "tensor"])


def pruned(method: Magnitude, tensors: dict[str, Tensor], *others: Magnitude) -> dict[str, Tensor]:
    pruned = magnitude(method, tensors, Shared(methods=(method, *others)))
    return {name: tensor.dense() for name, tensor in pruned.items()}


@given(sparsities, groups)
def test_exactly_the_smallest_become_zero_by_magnitude_and_position(sparsity: float, tensors: dict) -> None:
    before = torch.cat([tensor.flatten() for tensor in tensors.values()])
    order = sorted(range(len(before)), key=lambda i: (abs(float(before[i])), i))
    expected = before.clone()
    expected[order[: round(sparsity * len(before))]] = 0.0
    found = torch.cat([tensor.flatten() for tensor in pruned(Magnitude(sparsity, "global"), tensors).values()])
    assert torch.equal(_bits(found), _bits(expected))


@given(sparsities, st.sampled_from([torch.float32, torch.float64]), st.data())
def test_weights_of_any_size_are_ranked_as_sorting_them_does(sparsity: float, dtype: torch.dtype, data: Any) -> None:
    width = 8 * dtype.itemsize
    floats = st.floats(width=width, allow_nan=False, allow_infinity=False, allow_subnormal=True)
    found = torch.tensor(data.draw(st.lists(floats, min_size=1, max_size=30)), dtype=dtype)
    order = found.abs().argsort(stable=True)[: round(sparsity * len(found))]
    expected = found.index_fill(0, order, 0.0)
    assert torch.equal(_bits(pruned(Magnitude(sparsity, "global"), {"w": found})["w"]), _bits(expected))


@given(sparsities, groups)
def test_tensor_scope_is_global_scope_of_each_tensor(sparsity: float, tensors: dict) -> None:
    together = pruned(Magnitude(sparsity, "tensor"), tensors)
    for name, tensor in tensors.items():
        alone = pruned(Magnitude(sparsity, "global"), {name: tensor})
        assert torch.equal(_bits(together[name]), _bits(alone[name]))


@given(sparsities, sparsities, scopes, groups)
def test_masks_are_nested(one: float, other: float, scope: str, tensors: dict) -> None:
    less, more = (pruned(Magnitude(sparsity, scope), tensors) for sparsity in sorted([one, other]))
    assert all(((less[name] != 0) | (more[name] == 0)).all() for name in tensors)


@given(st.lists(sparsities, min_size=1, max_size=5), scopes, groups)
def test_sharing_the_ranking_changes_no_bit(wanted: list[float], scope: str, tensors: dict) -> None:
    methods = [Magnitude(sparsity, scope) for sparsity in wanted]
    shared = Shared(methods=tuple(methods))
    for method in methods:
        together = {name: stored.dense() for name, stored in magnitude(method, tensors, shared).items()}
        alone = pruned(method, tensors)
        assert all(torch.equal(_bits(together[name]), _bits(alone[name])) for name in tensors)


@given(groups)
def test_input_is_left_alone(tensors: dict) -> None:
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    pruned(Magnitude(0.9, "global"), tensors)
    assert all(torch.equal(_bits(tensors[name]), _bits(copies[name])) for name in tensors)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.99), st.integers(0, 100))
def test_global_agrees_with_torch(sparsity: float, seed: int) -> None:
    tensors = _normal([(17, 9), (30, 11)], seed)
    layers = [nn.Linear(tensor.shape[1], tensor.shape[0]) for tensor in tensors.values()]
    for layer, tensor in zip(layers, tensors.values(), strict=True):
        layer.weight = nn.Parameter(tensor.clone())
    prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=sparsity)
    for layer, found in zip(layers, pruned(Magnitude(sparsity, "global"), tensors).values(), strict=True):
        assert torch.equal(layer.weight, found)


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.99), st.integers(0, 100))
def test_tensor_scope_agrees_with_torch(sparsity: float, seed: int) -> None:
    tensors = _normal([(17, 9)], seed)
    layer = nn.Linear(9, 17)
    layer.weight = nn.Parameter(tensors["m0"].clone())
    prune.l1_unstructured(layer, "weight", amount=sparsity)
    assert torch.equal(layer.weight, pruned(Magnitude(sparsity, "tensor"), tensors)["m0"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_data_types_keep_theirs(dtype: torch.dtype) -> None:
    tensors = {"w": torch.randn(50, 8).to(dtype)}
    found = pruned(Magnitude(0.3), tensors)["w"]
    assert found.dtype == dtype
    assert int((found == 0).sum()) == 120


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_data_types_are_ranked_together(names: str) -> None:
    tensors = {"a": torch.tensor([[0.1]], dtype=torch.float64), "b": torch.tensor([[0.1]], dtype=torch.float32)}
    found = pruned(Magnitude(0.5, "global"), {name: tensors[name] for name in names})
    assert (float(found["a"]), float(found["b"])) == (0.0, pytest.approx(0.1)), "0.1 in float32 is a little more"


def test_weight_error_follows_the_closed_form(reference: Path) -> None:
    tensors = _normal([(1000, 1000)], seed=1)
    with (reference / "gaussian_error.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scheme"] == "magnitude pruning"]
    assert len(rows) == 6
    for row in rows:
        error = relative_squared_error(tensors, pruned(Magnitude(float(row["sparsity"])), tensors))["m0"]
        assert error == pytest.approx(float(row["relative_squared_error"]), rel=0.01)


def _normal(shapes: list[tuple[int, int]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"m{i}": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32)
