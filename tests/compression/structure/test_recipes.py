"""Compound recipes in any order: each result as if computed alone, and whole after a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import (
    Compressed,
    Dynamic,
    Magnitude,
    Recipe,
    Uniform,
    Weights,
    compress,
    compress_grid,
    load_packed,
    load_packed_weights,
    save_packed,
)
from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.layout.tokens import TokenFacts, renumbered
from trainlarge.compression.stored.packing import packed_header
from trainlarge.config.factorize import FixedRank, LowRank
from trainlarge.config.recipe import SLOTS
from trainlarge.config.structure import Heads, LayerList, Layers, Neurons
from trainlarge.config.vocabulary import Frequent, TokenList
from trainlarge.errors import UserError

from .conftest import MODELS, made

slots = {
    "vocabulary": st.sampled_from([Frequent(20), Frequent(50), TokenList([7, 50])]),
    "structure": st.sampled_from(
        [Heads(0.5), Heads(0.6, "global"), Neurons(0.4, "global"), Layers(0.5, "alternate"), LayerList([1, 2])]
    ),
    "factorize": st.sampled_from([LowRank(0.5), LowRank(0.6, "energy"), FixedRank(3, embeddings=False)]),
    "prune": st.sampled_from([Magnitude(0.3), Magnitude(0.31), Magnitude(0.6, "tensor", embeddings=False)]),
    "quantize": st.sampled_from([Uniform(8), Uniform(3, "tensor"), Uniform(4, embeddings=False)]),
    "activations": st.sampled_from([Dynamic(), Dynamic(4, symmetric=False)]),
}

SLOTS_ALONE = [slot for slot in SLOTS if slot in slots]
"""All but ``recover``, which needs data to train on."""


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    used = draw(st.lists(st.sampled_from(SLOTS_ALONE), unique=True, max_size=4))
    order = sorted(used, key="activations".__eq__)  # it comes last
    return Recipe(**{slot: draw(slots[slot]) for slot in used}, order=order)


by_model = st.sampled_from(list(MODELS))
few = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@few
@given(name=by_model, recipe=recipes())
def test_a_file_gives_back_the_evaluated_model(
    name: str, recipe: Recipe, tokens: Tensor, facts: TokenFacts, tmp_path: Path
) -> None:
    compressed, path = compress(made(name), recipe, tokens=facts), tmp_path / "packed"
    save_packed(path, compressed)
    assert path.stat().st_size == compressed.sizes.file_bytes
    assert _equal(load_packed_weights(path), compressed.weights)
    header = packed_header(path)
    assert Recipe.from_json(header.recipe) == recipe
    assert Structure.from_json(header.structure) == compressed.left.structure
    new = renumbered(tokens, compressed.left.structure.tokens)
    with torch.no_grad():
        expected = compressed.model()(new).logits
        assert torch.equal(load_packed(path)(new).logits, expected)
        assert torch.equal(load_packed(path, made(name))(new).logits, expected)


@few
@given(name=by_model, grid=st.lists(recipes(), max_size=3))
def test_every_result_is_the_one_computed_alone(name: str, grid: list[Recipe], facts: TokenFacts) -> None:
    results = dict(compress_grid(Weights.of(made(name)), grid, tokens=facts))
    assert sorted(results) == list(range(len(grid)))
    for position, recipe in enumerate(grid):
        _assert_same(results[position], compress(made(name), recipe, tokens=facts))


def test_first_steps_are_shared_whatever_comes_after(encoder: PreTrainedModel, facts: TokenFacts) -> None:
    """Magnitudes are ranked anew after heads were removed: what is shared is about the same weights."""
    prunes, shapes = [Magnitude(0.3), Magnitude(0.6)], [None, Heads(0.5), Heads(0.75), Layers(0.5)]
    grid = [Recipe(prune=prune, structure=shape) for prune in prunes for shape in shapes]
    for position, result in compress_grid(Weights.of(encoder), grid):
        _assert_same(result, compress(encoder, grid[position]))


@few
@given(name=by_model, recipe=recipes())
def test_the_checkpoint_survives(name: str, recipe: Recipe, facts: TokenFacts) -> None:
    model = made(name)
    before = Weights.of(model)
    list(compress_grid(before, [recipe], tokens=facts))
    assert _equal(before.tensors, Weights.of(made(name)).tensors)
    assert _equal(Weights.of(model).tensors, before.tensors)


def test_the_order_matters_and_is_kept(encoder: PreTrainedModel) -> None:
    first = compress(encoder, Recipe(prune=Magnitude(0.5), factorize=FixedRank(3)))
    last = compress(encoder, Recipe(prune=Magnitude(0.5), factorize=FixedRank(3), order=("prune", "factorize")))
    assert first.sizes.nonzero_parameters < last.sizes.nonzero_parameters
    assert (first.recipe.describe(), last.recipe.describe()) == (
        "svd of rank 3, prune 50 % global",
        "prune 50 % global, svd of rank 3",
    )


def test_zeros_survive_quantization_and_cutting(encoder: PreTrainedModel) -> None:
    steps = {"prune": Magnitude(0.6), "structure": Heads(0.5), "quantize": Uniform(4)}
    for order in (("prune", "structure", "quantize"), ("prune", "quantize", "structure")):
        result = compress(encoder, Recipe(**steps, order=order)).expanded()
        pruned = compress(encoder, Recipe(prune=Magnitude(0.6))).weights
        assert all((result[name][pruned[name] == 0] == 0).all() for name in pruned if pruned[name].ndim == 2)


def test_what_a_cut_does_not_touch_stays_quantized(encoder: PreTrainedModel) -> None:
    recipe = Recipe(quantize=Uniform(4), structure=Layers(0.5), order=("quantize", "structure"))
    other = Recipe(quantize=Uniform(4), structure=Layers(0.5))
    compressed, natural = compress(encoder, recipe), compress(encoder, other)
    assert _equal(compressed.weights, natural.weights)
    assert compressed.sizes.ideal_bytes == natural.sizes.ideal_bytes


def test_what_is_pruned_after_quantization_stays_codes(encoder: PreTrainedModel) -> None:
    parts = {"quantize": Uniform(4), "prune": Magnitude(0.5)}
    quantized = compress(encoder, Recipe(quantize=Uniform(4))).weights
    both = compress(encoder, Recipe(**parts, order=("quantize", "prune")))
    for name in both.left.matrices:
        values = both.weights[name]
        assert ((values == 0) | (values == quantized[name])).all()
    assert both.sizes.ideal_bytes <= compress(encoder, Recipe(**parts)).sizes.ideal_bytes


@pytest.mark.parametrize("name", ["roberta", "bert"])
def test_a_file_of_another_model(name: str, tmp_path: Path, facts: TokenFacts) -> None:
    recipe = Recipe(structure=Heads(0.5), vocabulary=Frequent(20))
    save_packed(tmp_path / "packed", compress(made("modern"), recipe, tokens=facts))
    other = made(name)
    before = Weights.of(other).tensors
    with pytest.raises(UserError, match=r"^packed=.* a file that fits \(weights\."):
        load_packed(tmp_path / "packed", other)
    assert _equal(Weights.of(other).tensors, before)


def test_a_file_of_a_deeper_model(plainest: torch.nn.Module, tmp_path: Path) -> None:
    save_packed(tmp_path / "packed", compress(made("bert"), Recipe(structure=LayerList([3]))))
    shallow = compress(made("bert"), Recipe(structure=Layers(0.5))).model()
    with pytest.raises(
        UserError, match=r"^packed=.*packed.structure=layer 3 is not valid: must be of a model with more than 2 layers"
    ):
        load_packed(tmp_path / "packed", shallow)
    with pytest.raises(UserError, match=r"^packed=.*packed.structure=Plainest"):
        load_packed(tmp_path / "packed", plainest)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "packed"
    save_packed(path, compress(made("bert"), Recipe(structure=Heads(0.5), factorize=FixedRank(2))))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="truncated"):
        load_packed(path)


def _assert_same(one: Compressed, other: Compressed) -> None:
    assert (one.recipe, one.sizes, one.left.structure) == (other.recipe, other.sizes, other.left.structure)
    assert _equal(one.weights, other.weights)
    assert _equal(dict(one.packed.encoded()), dict(other.packed.encoded()))


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
