"""Recipes that differ in a key which their description leaves out have different names in the frames."""

from __future__ import annotations

import pandas as pd

from trainlarge.compression import SparseGPT, Uniform
from trainlarge.config.recipe import Recipe
from trainlarge.results.recipes import told_apart


def named(*recipes: Recipe) -> list[str]:
    # The index is that of a frame some rows of which were left out.
    texts = pd.Series([recipe.describe() for recipe in recipes], index=range(0, 3 * len(recipes), 3))
    return list(told_apart(texts, [recipe.to_json() for recipe in recipes]))


def test_what_differs_is_added_and_nothing_else() -> None:
    first, second = Recipe(SparseGPT(0.5, damping=0.01)), Recipe(SparseGPT(0.5, damping=0.1))
    assert first.describe() == second.describe()
    text, alone = first.describe(), Recipe(quantize=Uniform(4))
    assert named(first, alone, second, first) == [
        f"{text} (prune.damping=0.01)",
        alone.describe(),
        f"{text} (prune.damping=0.1)",
        f"{text} (prune.damping=0.01)",
    ]


def test_equal_recipes_keep_their_names() -> None:
    recipes = [Recipe(SparseGPT(0.5)), Recipe(SparseGPT(0.5)), Recipe(quantize=Uniform(4)), Recipe()]
    assert named(*recipes) == [recipe.describe() for recipe in recipes]


def test_a_key_that_one_recipe_does_not_have_differs() -> None:
    texts = pd.Series(["a", "a"])
    found = told_apart(texts, [{"version": 1, "prune": {"name": "x"}}, {"version": 1, "prune": {"name": "x", "k": 2}}])
    assert list(found) == ["a", "a (prune.k=2)"]
