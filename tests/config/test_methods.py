"""Every method: JSON and configuration forms, its group file, and one clear line for each bad value."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.commands.rerun import compose_config
from trainlarge.config.identity import added_fields
from trainlarge.config.method import METHODS, Method
from trainlarge.config.prune import Magnitude, Random, SparseGPT, Wanda
from trainlarge.config.quantize import GPTQ, Binary, KMeans, LowRankRepair, MinMax, Mixed, Outliers, Ternary, Uniform
from trainlarge.config.recipe import Recipe
from trainlarge.config.share import share_folder
from trainlarge.errors import UserError

sparsities = st.floats(0.01, 0.99)
common = {"embeddings": st.booleans()}
groups = {
    "granularity": st.sampled_from(["tensor", "row", "group"]),
    "group_size": st.none() | st.integers(1, 256),
}
uniform = {
    "bits": st.integers(2, 8),
    "symmetric": st.booleans(),
    "range": st.sampled_from(["minmax", "percentile", "mse", "sigma"]),
    "sigma": st.none() | st.floats(0.1, 100),
    "embedding_sigma": st.none() | st.floats(0.1, 100),
    "percentile": st.none() | st.floats(50, 100, exclude_min=True),
    "embedding_bits": st.none() | st.integers(2, 8),
    **groups,
    **common,
}
halves = {"sparsity": st.sampled_from([0.25, 0.5, 0.75]), "m": st.sampled_from([4, 8])}
calibrated = {"calibration_rows": st.integers(1, 1000), **common}
damping = {"damping": st.floats(1e-6, 1)}
prunes = st.one_of(
    st.builds(Magnitude, sparsity=sparsities, scope=st.sampled_from(["global", "tensor", "row"]), **common),
    st.builds(Magnitude, scope=st.just("block"), **halves, **common),
    st.builds(Random, sparsity=sparsities, seed=st.integers(0, 9), **common),
    st.builds(Wanda, sparsity=sparsities, **calibrated),
    st.builds(Wanda, **halves, **calibrated),
    st.builds(SparseGPT, block_size=st.sampled_from([8, 64]), **halves, **damping, **calibrated),
)
quantizes = st.one_of(
    st.builds(Uniform, **uniform),
    st.builds(Outliers, share=st.floats(0, 0.99), **uniform),
    st.builds(LowRankRepair, rank=st.integers(1, 99), rounds=st.integers(1, 100), **uniform),
    st.builds(GPTQ, **uniform, **damping, calibration_rows=st.integers(1, 1000), tied=st.booleans()),
    st.builds(
        Mixed,
        bits=st.floats(2, 8),
        sensitivity=st.sampled_from(["layer", "model"]),
        symmetric=st.booleans(),
        **groups,
        **calibrated,
    ),
    st.builds(MinMax, bits=st.integers(2, 8), **groups, **common),
    st.builds(KMeans, bits=st.integers(1, 8), granularity=st.sampled_from(["tensor", "row"]), **common),
    st.builds(Ternary, **groups, **common),
    st.builds(Binary, **groups, **common),
)
recipes = st.builds(Recipe, prune=prunes, quantize=quantizes)


@given(recipes)
def test_json_round_trip_is_exact(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@given(recipes, st.booleans())
def test_configuration_gives_the_same_recipe_also_from_text(recipe: Recipe, as_text: bool) -> None:
    given_ = {slot: _group(part, as_text) for slot, part in recipe.methods().items() if part}
    assert Recipe.from_config(given_["prune"], given_["quantize"]) == recipe


@given(recipes, recipes)
def test_recipes_that_differ_are_described_by_different_json(one: Recipe, other: Recipe) -> None:
    assert (one == other) == (one.to_json() == other.to_json())


def test_fields_that_came_later_leave_old_recipes_as_they_were() -> None:
    assert Magnitude(0.5).to_json() == {
        "name": "magnitude", "version": 1, "sparsity": 0.5, "scope": "global", "embeddings": True
    }  # fmt: skip
    assert set(Uniform(4).to_json()) == {"name", "version", "bits", "granularity", "symmetric", "embeddings"}
    assert "sensitivity" not in Mixed(4).to_json() and Mixed(4, sensitivity="model").to_json()["sensitivity"] == "model"
    for methods in METHODS.values():
        for kind in methods.values():
            defaults = {item.name: item.default for item in fields(kind)}
            assert all(defaults[key] == value for key, value in added_fields(kind).items())


def test_bits_of_embeddings_are_said_only_where_they_count() -> None:
    for plain in (Uniform(4), Outliers(4), GPTQ(4)):
        assert replace(plain, embedding_bits=4) == plain and "embedding_bits" not in plain.to_json()
        assert replace(plain, embedding_bits=8) != plain
        assert replace(plain, embeddings=False, embedding_bits=8) == replace(plain, embeddings=False)


@pytest.mark.parametrize("name", ["uniform", "min_max", "gptq", "outliers", "mixed", "kmeans", "binary", "ternary"])
def test_per_channel_is_per_row(name: str) -> None:
    """The two words make one recipe, and so one configuration and one id."""
    method = METHODS["quantize"][name]
    group = {"name": name, "granularity": "channel", **({} if issubclass(method, Binary | Ternary) else {"bits": 4})}
    recipe = Recipe.from_config(quantize=group)
    assert recipe == Recipe.from_config(quantize={**group, "granularity": "row"})
    assert recipe.to_config()["quantize"]["granularity"] == "row"


def test_a_group_size_counts_for_groups_only() -> None:
    assert Uniform(4, "row", group_size=32) == Uniform(4, "row")
    assert Uniform(4, "group").group_size == 64
    assert Uniform(4, percentile=99) == Uniform(4)
    assert Uniform(4, range="percentile").percentile == 99.9


def test_standard_deviations_count_for_their_range_only() -> None:
    assert Uniform(4, sigma=2.5, embedding_sigma=4) == Uniform(4)
    found = Uniform(4, range="sigma")
    assert found.sigma == 3 and replace(found, embedding_sigma=3) == found == replace(found, sigma=3)
    assert replace(found, embeddings=False, embedding_sigma=4) == replace(found, embeddings=False)
    both = replace(found, embedding_sigma=4, embedding_bits=6)
    assert both.of_embeddings() == Uniform(6, range="sigma", sigma=4)
    assert GPTQ(4, embeddings=False, tied=True) == GPTQ(4, embeddings=False) and "tied" not in GPTQ(4).to_json()


@pytest.mark.parametrize("slot", ["prune", "quantize"])
def test_every_method_has_a_group_file_with_all_its_fields(slot: str) -> None:
    groups_of = [path.stem for path in (share_folder() / "conf" / slot).glob("*.yaml") if path.stem != "none"]
    named = {name: compose_config("compress", ["checkpoint=x", f"{slot}={name}"])[slot] for name in groups_of}
    assert {group["name"] for group in named.values()} == set(METHODS[slot])
    for name, group in named.items():
        kind = METHODS[slot][group["name"]]
        allowed = {"name", *(item.name for item in fields(kind))}
        assert set(group) <= allowed and (name != kind.name or set(group) == allowed)
        Recipe.from_config(**{"prune": None, "quantize": None, slot: group})


@pytest.mark.parametrize(
    ("text", "recipe"),
    [
        ("prune 50 % 2:4 blocks", Recipe(Magnitude(0.5, "block", 4))),
        ("prune 60 % row", Recipe(Magnitude(0.6, "row"))),
        ("prune 60 % random", Recipe(Random(0.6))),
        ("prune 50 % wanda", Recipe(Wanda(0.5))),
        ("prune 50 % sparsegpt 4:8", Recipe(SparseGPT(0.5, m=8))),
        ("4 bit group 32 mse", Recipe(quantize=Uniform(4, "group", group_size=32, range="mse"))),
        ("4 bit row, embeddings 8 bit", Recipe(quantize=Uniform(4, embedding_bits=8))),
        ("4 bit row sigma 2.5", Recipe(quantize=Uniform(4, range="sigma", sigma=2.5))),
        ("4 bit row sigma 3, embeddings sigma 4", Recipe(quantize=Uniform(4, range="sigma", embedding_sigma=4))),
        ("4 bit row gptq tied", Recipe(quantize=GPTQ(4, tied=True))),
        ("4 bit row repaired rank 8", Recipe(quantize=LowRankRepair(4, rank=8))),
        (
            "3 bit row repaired rank 4 5 rounds without embeddings",
            Recipe(quantize=LowRankRepair(3, rounds=5, embeddings=False)),
        ),
        ("3 bit row outliers 1 %", Recipe(quantize=Outliers(3))),
        ("4 bit row symmetric gptq", Recipe(quantize=GPTQ(4, symmetric=True))),
        ("3.5 bit row mixed", Recipe(quantize=Mixed(3.5))),
        ("3.5 bit row mixed by model", Recipe(quantize=Mixed(3.5, sensitivity="model"))),
        ("4 bit row min_max", Recipe(quantize=MinMax(4))),
        ("4 bit group 64 min_max without embeddings", Recipe(quantize=MinMax(4, "group", embeddings=False))),
        ("4 bit tensor kmeans", Recipe(quantize=KMeans(4))),
        ("ternary row", Recipe(quantize=Ternary("row"))),
        ("binary group 64", Recipe(quantize=Binary("group"))),
    ],
)
def test_describe(text: str, recipe: Recipe) -> None:
    assert recipe.describe() == text


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (
            {"name": "magnitude", "sparsity": 0.5, "scope": "block"},
            "prune.m=null is not valid: must be a whole number from 2",
        ),
        ({"name": "magnitude", "sparsity": 0.5, "m": 4}, "prune.m=4 is not valid: must be null for prune.scope=global"),
        (
            {"name": "magnitude", "sparsity": 0.3, "scope": "block", "m": 4},
            "prune.sparsity=0.3 is not valid: must be a multiple",
        ),
        ({"name": "random", "sparsity": 0.5, "seed": -1}, "prune.seed=-1 is not valid: must be a whole number"),
        ({"name": "random", "sparsity": 1}, "prune.sparsity=1 is not valid: must be a number in [0, 1)"),
        ({"name": "wanda", "sparsity": 0.3, "m": 4}, "prune.sparsity=0.3 is not valid: must be a multiple of 1/4"),
        ({"name": "wanda", "sparsity": 0.5, "m": 1}, "prune.m=1"),
        ({"name": "wanda", "sparsity": 0.5, "calibration_rows": 0}, "prune.calibration_rows=0"),
        ({"name": "sparsegpt", "sparsity": 0.5, "damping": 0}, "prune.damping=0"),
        ({"name": "sparsegpt", "sparsity": 0.5, "m": 4, "block_size": 6}, "prune.block_size=6"),
    ],
)
def test_bad_pruning(group: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe.from_config(group, None)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"name": "uniform", "bits": 4, "granularity": "group", "group_size": 0}, "quantize.group_size=0"),
        (
            {"name": "uniform", "bits": 4, "embedding_bits": 1},
            "quantize.embedding_bits=1 is not valid: must be a whole number",
        ),
        (
            {"name": "gptq", "bits": 4, "embedding_bits": 32},
            "quantize.embedding_bits=32 is not valid: must be a whole number",
        ),
        (
            {"name": "kmeans", "bits": 4, "embedding_bits": 8},
            "quantize.embedding_bits=8 is not valid: no such key: must be a field of kmeans",
        ),
        ({"name": "uniform", "bits": 4, "group_size": "many"}, "quantize.group_size=many"),
        (
            {"name": "uniform", "bits": 4, "range": "best"},
            "quantize.range=best is not valid: must be one of minmax, percentile",
        ),
        ({"name": "uniform", "bits": 4, "range": "percentile", "percentile": 40}, "quantize.percentile=40"),
        (
            {"name": "uniform", "bits": 4, "range": "sigma", "sigma": 0},
            "quantize.sigma=0 is not valid: must be a number above 0 and up to 100",
        ),
        ({"name": "gptq", "bits": 4, "range": "sigma", "embedding_sigma": "x"}, "quantize.embedding_sigma=x"),
        ({"name": "repaired", "bits": 4, "rank": 0}, "quantize.rank=0 is not valid: must be a whole number from 1"),
        (
            {"name": "repaired", "bits": 4, "rounds": 101},
            "quantize.rounds=101 is not valid: must be a whole number from",
        ),
        ({"name": "gptq", "bits": 4, "tied": "x"}, "quantize.tied=x is not valid: must be true or false"),
        ({"name": "outliers", "bits": 4, "share": 1}, "quantize.share=1 is not valid: must be a number in [0, 1)"),
        ({"name": "gptq", "bits": 4, "damping": -1}, "quantize.damping=-1"),
        ({"name": "gptq", "bits": 1}, "quantize.bits=1 is not valid: must be a whole number from 2 to 8"),
        ({"name": "mixed", "bits": 1.5}, "quantize.bits=1.5 is not valid: must be a number from 2 to 8"),
        (
            {"name": "mixed", "bits": 3, "sensitivity": "loss"},
            "quantize.sensitivity=loss is not valid: must be one of layer, mod",
        ),
        ({"name": "min_max", "bits": 1}, "quantize.bits=1 is not valid: must be a whole number from 2 to 8"),
        (
            {"name": "min_max", "bits": 4, "range": "mse"},
            "quantize.range=mse is not valid: no such key: must be a field of min_max",
        ),
        ({"name": "kmeans", "bits": 9}, "quantize.bits=9 is not valid: must be a whole number from 1 to 8"),
        (
            {"name": "kmeans", "bits": 4, "granularity": "group"},
            "quantize.granularity=group is not valid: must be one of tensor",
        ),
        ({"name": "kmeans", "bits": 4, "iterations": 0}, "quantize.iterations=0"),
        ({"name": "ternary", "bits": 2}, "quantize.bits=2 is not valid: no such key: must be a field of ternary"),
        ({"name": "binary", "granularity": "column"}, "quantize.granularity=column"),
    ],
)
def test_bad_quantization(group: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe.from_config(None, group)
    assert str(error.value).startswith(message)


def _group(method: Method, as_text: bool) -> dict[str, Any]:
    group = {key: value for key, value in method.to_json().items() if key != "version"}
    return {key: str(value) if as_text and value is not None else value for key, value in group.items()}
