"""A result, or a refusal, never depends on the recipes that are compressed together with it."""

from __future__ import annotations

import random
from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor

from trainlarge.compression import Magnitude, Recipe
from trainlarge.config.factorize import LowRank
from trainlarge.config.method import Method
from trainlarge.config.quantize import Mixed, Uniform
from trainlarge.config.structure import Heads

from .company import KINDS, agree, alone, of, outcomes, recipes, variants

OF_ONE_KIND = [(kind, pair) for kind in KINDS for pair in combinations(variants(kind), 2)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.slot}-{kind.name}")
def test_every_method_has_variants_that_differ(kind: type[Method]) -> None:
    """A new method with fields that ``VALUES`` does not know, or of which nothing can be built, is told here."""
    assert len(variants(kind)) >= 3


def test_a_sparsity_that_fits_no_block_does_not_strike_the_blocks_company() -> None:
    blocks = Recipe(prune=Magnitude(0.5, scope="block", m=4))
    for group in permutations([Recipe(prune=Magnitude(0.3)), Recipe(prune=Magnitude(0.6)), blocks]):
        assert [outcome[0] for outcome in outcomes(list(group))] == ["done"] * 3
        agree(list(group))


def test_all_methods_together_in_any_order() -> None:
    every = [of(variant) for kind in KINDS for variant in variants(kind, 3)]
    for seed in range(2):
        random.Random(seed).shuffle(every)
        agree(every)
    assert {alone(recipe)[0] for recipe in every} == {"done", "refused"}


def test_a_matrix_without_a_decomposition_strikes_no_other_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(matrix: Tensor, **options: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fails)
    dense, factorized, pruned = outcomes([Recipe(), Recipe(factorize=LowRank(0.5)), Recipe(prune=Magnitude(0.5))])
    assert (dense[0], pruned) == ("done", alone(Recipe(prune=Magnitude(0.5))))
    assert factorized[0] == "refused" and "factorize.name=svd" in factorized[1]


def test_pairs_of_one_method() -> None:
    for _, pair in random.Random(0).sample(OF_ONE_KIND, 20):
        for order in permutations(map(of, pair)):
            agree(list(order))


def test_pairs_and_triples_of_any_methods() -> None:
    draw, every = random.Random(1), recipes(seed=2, count=40)
    for size in [2] * 10 + [3] * 4:
        for order in permutations(draw.sample(every, size), size):
            agree(list(order))


def test_measuring_a_smaller_model_changes_no_weight_of_the_checkpoint() -> None:
    """A model of other shapes holds tensors of the checkpoint itself; measuring replaces matrices in place."""
    measured = of(Heads(0.1), Mixed(bits=4.0, sensitivity="model", embeddings=False))
    for order in permutations([measured, of(Heads(0.1, "global")), of(Uniform(bits=3))]):
        agree(list(order))


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", ["modern", "roberta", "untied", "distilbert"])
def test_triples_and_a_large_group(model: str) -> None:
    draw, every = random.Random(model), recipes(seed=100, count=100)
    for _ in range(30):
        for order in permutations(draw.sample(every, 3)):
            agree(list(order), model)
    agree(every, model)
