"""compress and compress_grid: a result never depends on the other recipes of the grid."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainlarge.compression import Compressed, Magnitude, Recipe, Uniform, Weights, compress, compress_grid
from trainlarge.compression.model_tensors import load_stored
from trainlarge.compression.stored.dense import Dense
from trainlarge.config.prune import Random
from trainlarge.config.quantize import GPTQ, Outliers
from trainlarge.errors import UserError

prunes = st.none() | st.builds(
    Magnitude,
    sparsity=st.sampled_from([0.0, 0.3, 0.31, 0.6, 0.9]),
    scope=st.sampled_from(["global", "tensor"]),
    embeddings=st.booleans(),
)
quantizes = st.none() | st.builds(
    Uniform, bits=st.integers(2, 8), granularity=st.sampled_from(["tensor", "row"]), embeddings=st.booleans()
)
grids = st.lists(st.builds(Recipe, prune=prunes, quantize=quantizes), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes=grids)
def test_every_result_is_the_one_computed_alone(plainest: nn.Module, recipes: list[Recipe]) -> None:
    results = dict(compress_grid(Weights.of(plainest), recipes))
    assert sorted(results) == list(range(len(recipes)))
    for position, recipe in enumerate(recipes):
        _assert_same(results[position], compress(plainest, recipe))


def test_rounded_weights_are_made_one_at_a_time(modern: PreTrainedModel) -> None:
    compressed = compress(modern, Recipe(quantize=Uniform(bits=4)))
    name = compressed.left.selected(embeddings=False)[0]
    once, again = compressed.weights[name], compressed.weights[name]
    assert torch.equal(once, again) and once.data_ptr() != again.data_ptr(), "made when asked for, and not kept"
    assert list(compressed.weights) == list(compressed.packed.stored) == list(compressed.expanded())
    load_stored(modern, compressed.packed.stored)
    assert torch.equal(modern.state_dict()[name], once)


@pytest.mark.parametrize("prune", [Magnitude(0.5), Magnitude(0.5, "global"), Magnitude(0.5, "row"), Random(0.5)])
def test_recipes_share_the_weights_of_the_checkpoint(plainest: nn.Module, prune: Magnitude | Random) -> None:
    weights = Weights.of(plainest)
    recipes = [Recipe(), Recipe(prune), Recipe(prune, Uniform(8))]
    for position, compressed in compress_grid(weights, recipes):
        for name, stored in compressed.packed.stored.items():
            if isinstance(stored, Dense):
                assert stored.source.data_ptr() == weights.tensors[name].data_ptr(), (recipes[position], name)


def test_the_order_of_recipes_does_not_matter(modern: PreTrainedModel) -> None:
    recipes = [
        Recipe(Magnitude(sparsity, scope) if sparsity else None, Uniform(bits) if bits else None)
        for sparsity in (0, 0.3, 0.6)
        for scope in ("global", "tensor")
        for bits in (None, 4, 8)
    ]
    weights = Weights.of(modern)
    expected = {recipes[position]: result for position, result in compress_grid(weights, recipes)}
    random.Random(0).shuffle(recipes)
    for position, result in compress_grid(weights, recipes):
        _assert_same(result, expected[recipes[position]])


def test_the_snapshot_survives_a_grid(plainest: nn.Module) -> None:
    weights = Weights.of(plainest)
    copies = {name: tensor.clone() for name, tensor in weights.tensors.items()}
    list(compress_grid(weights, [Recipe(Magnitude(0.9), Uniform(2)), Recipe(Magnitude(0.3, "global"))]))
    assert _equal(weights.tensors, copies)


def test_dense_changes_nothing(model: PreTrainedModel) -> None:
    assert _equal(compress(model, Recipe()).weights, Weights.of(model).tensors)


def test_only_matrices_change(model: PreTrainedModel) -> None:
    weights = Weights.of(model)
    changed = compress(model, Recipe(Magnitude(0.5), Uniform(3))).weights
    assert {name for name in weights.tensors if not torch.equal(weights.tensors[name], changed[name])} == set(
        weights.matrices
    )


def test_embeddings_can_be_left_out(model: PreTrainedModel) -> None:
    weights = Weights.of(model)
    recipe = Recipe(Magnitude(0.5, "global", embeddings=False), Uniform(3, embeddings=False))
    changed = compress(model, recipe).weights
    assert all(torch.equal(weights.tensors[name], changed[name]) for name in weights.embeddings)
    body = [changed[name] for name in weights.matrices - weights.embeddings]
    assert sum(int((tensor == 0).sum()) for tensor in body) >= sum(tensor.numel() for tensor in body) // 2


@pytest.mark.parametrize("kind", [Uniform, Outliers, GPTQ])
def test_embeddings_can_take_other_bits(model: PreTrainedModel, kind: type[Uniform]) -> None:
    batches = [torch.randint(3, 120, (2, 8))]
    weights = Weights.of(model)
    apart, four, eight = (
        compress(model, Recipe(Magnitude(0.5), method), calibration=batches)
        for method in (kind(4, embedding_bits=8), kind(4), kind(8))
    )
    for name in weights.matrices:
        expected = eight if name in weights.embeddings else four
        assert torch.equal(apart.weights[name], expected.weights[name])
    body, whole = "ideal_bytes_without_embeddings", "ideal_bytes"
    assert getattr(apart.sizes, body) == getattr(four.sizes, body)
    assert getattr(four.sizes, whole) < getattr(apart.sizes, whole) < getattr(eight.sizes, whole)


def test_pruned_weights_stay_zero_when_quantized(model: PreTrainedModel) -> None:
    pruned = compress(model, Recipe(Magnitude(0.6))).weights
    for quantize in (Uniform(2, "tensor"), Uniform(8), Uniform(4, symmetric=True)):
        both = compress(model, Recipe(Magnitude(0.6), quantize)).weights
        assert all((both[name][pruned[name] == 0] == 0).all() for name in pruned)


def test_the_model_changes_only_when_asked(model: PreTrainedModel) -> None:
    before = Weights.of(model).tensors
    recipe = Recipe(Magnitude(0.5), Uniform(4))
    compressed = compress(model, recipe)
    assert _equal(Weights.of(model).tensors, before)
    compress(model, recipe, inplace=True)
    assert _equal(Weights.of(model).tensors, compressed.weights)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_a_result_does_not_follow_the_model(model: PreTrainedModel) -> None:
    compressed = compress(model, Recipe())
    before = {name: tensor.clone() for name, tensor in compressed.weights.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert _equal(compressed.weights, before)


def test_numbers_that_are_not_finite(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 2] = float("nan")
    with pytest.raises(UserError, match=r"^weights\..*embed.*\.weight="):
        compress(model, Recipe(Magnitude(0.5)))


def _assert_same(one: Compressed, other: Compressed) -> None:
    assert one.recipe == other.recipe
    assert one.sizes == other.sizes
    assert _equal(one.weights, other.weights)
    assert _equal(dict(one.packed.encoded()), dict(other.packed.encoded()))


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Same names in the same order and the same values; no test here makes a -0."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
