"""Recipes: what they allow, their JSON and configuration forms."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.method import METHODS, Method
from trainlarge.config.prune import Magnitude
from trainlarge.config.quantize import Uniform
from trainlarge.config.recipe import Recipe
from trainlarge.config.structure import Heads
from trainlarge.errors import UserError

magnitudes = st.builds(
    Magnitude,
    sparsity=st.floats(0, 1, exclude_max=True),
    scope=st.sampled_from(["global", "tensor"]),
    embeddings=st.booleans(),
)
uniforms = st.builds(
    Uniform,
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "row"]),
    symmetric=st.booleans(),
    embeddings=st.booleans(),
)
recipes = st.builds(Recipe, prune=st.none() | magnitudes, quantize=st.none() | uniforms)


@given(recipes)
def test_json_round_trip_is_exact(recipe: Recipe) -> None:
    data = json.loads(json.dumps(recipe.to_json()))
    assert Recipe.from_json(data) == recipe
    assert Recipe.from_json(data).to_json() == recipe.to_json()


def test_json_names_method_and_versions() -> None:
    data = Recipe(quantize=Uniform(bits=4)).to_json()
    assert data["version"] == 1
    assert data["prune"] is None
    assert data["quantize"] == {
        "name": "uniform",
        "version": 1,
        "bits": 4,
        "granularity": "row",
        "symmetric": False,
        "embeddings": True,
    }


@given(recipes)
def test_config_groups_give_the_same_recipe(recipe: Recipe) -> None:
    groups = {slot: _group(method) for slot, method in recipe.methods().items()}
    assert Recipe.from_config(**groups) == _without_idle_pruning(recipe)


@given(recipes)
def test_config_values_may_be_text(recipe: Recipe) -> None:
    groups = {
        slot: {key: str(value) for key, value in _group(method).items()} for slot, method in recipe.methods().items()
    }
    assert Recipe.from_config(**groups) == _without_idle_pruning(recipe)


def test_whole_numbers_are_kind() -> None:
    assert Recipe.from_config(None, {"name": "uniform", "bits": 4.0}) == Recipe(quantize=Uniform(4))
    assert isinstance(Magnitude(0).to_json()["sparsity"], float)


@pytest.mark.parametrize("sparsity", [0, 0.0, "0"])
@pytest.mark.parametrize("bits", [32, 32.0, "32"])
def test_the_ends_of_the_axes_are_dense(sparsity: object, bits: object) -> None:
    prune = {"name": "magnitude", "sparsity": sparsity, "scope": "tensor"}
    assert Recipe.from_config(prune, {"name": "uniform", "bits": bits}) == Recipe()


def test_absent_groups_are_none() -> None:
    assert Recipe.from_config(None, {"name": "none"}) == Recipe()


@pytest.mark.parametrize(
    ("prune", "quantize", "message"),
    [
        ({"name": "magnitude", "sparsity": 1.2}, None, "prune.sparsity=1.2 is not valid: must be a number in [0, 1)"),
        ({"name": "magnitude", "sparsity": 1}, None, "prune.sparsity=1 is not valid: must be a number in [0, 1)"),
        ({"name": "magnitude", "sparsity": float("nan")}, None, "prune.sparsity=nan"),
        ({"name": "magnitude", "sparsity": True}, None, "prune.sparsity=true"),
        ({"name": "magnitude", "sparsity": False}, None, "prune.sparsity=false"),
        (
            {"name": "magnitude", "sparsity": 0, "bits": 4},
            None,
            "prune.bits=4 is not valid: no such key: must be a field of magnitude",
        ),
        ({"name": "magnitude", "sparsity": "much"}, None, "prune.sparsity=much"),
        ({"name": "magnitude"}, None, "prune.sparsity=null"),
        (
            {"name": "magnitude", "sparsity": 0.5, "scope": "layer"},
            None,
            "prune.scope=layer is not valid: must be one of global",
        ),
        (
            {"name": "magnitude", "sparsity": 0.5, "bits": 4},
            None,
            "prune.bits=4 is not valid: no such key: must be a field of magnitude",
        ),
        (
            {"name": "magnitude", "sparsity": 0.5, "embeddings": 1},
            None,
            "prune.embeddings=1 is not valid: must be true or false",
        ),
        ({"name": "magic"}, None, "prune.name=magic is not valid: must be one of none, magnitude"),
        ({"name": ["magnitude"]}, None, "prune.name=['magnitude']"),
        ({"sparsity": 0.5}, None, "prune.name=null"),
        (
            {"name": "none", "sparsity": 0.5},
            None,
            "prune.sparsity=0.5 is not valid: must not be set with prune.name=none",
        ),
        ("magnitude", None, "prune=magnitude is not valid: must be a name with its fields"),
        (None, {"name": "uniform", "bits": 1}, "quantize.bits=1 is not valid: must be a whole number from 2 to 8"),
        (None, {"name": "uniform", "bits": 9}, "quantize.bits=9"),
        (None, {"name": "uniform", "bits": True}, "quantize.bits=true"),
        (None, {"name": "uniform", "bits": 4.5}, "quantize.bits=4.5"),
        (None, {"name": "uniform", "bits": 4, "granularity": "column"}, "quantize.granularity=column"),
        (None, {"name": "uniform", "bits": 4, "symmetric": "maybe"}, "quantize.symmetric=maybe"),
        (None, {"name": "magnitude", "sparsity": 0.5}, "quantize.name=magnitude"),
    ],
)
def test_bad_configuration_names_the_key(prune: object, quantize: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe.from_config(prune, quantize)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"version": 2}, "recipe.version"),
        ({"version": None}, "recipe.version"),
        ({"restore": None}, "recipe"),
        ({"recover": {"name": "retrain", "version": 1, "budget": "5 s"}}, "recover.budget"),
        ({"prune": {"name": "magnitude", "version": 2, "sparsity": 0.5}}, "prune.version"),
        ({"prune": {"name": "magnitude", "sparsity": 0.5}}, "prune.version"),
        ({"prune": {"name": "magnitude", "version": 1, "sparsity": 0.5, "norm": 1}}, "prune.norm"),
        ({"prune": {"name": "gone", "version": 1}}, "prune.name"),
        ({"prune": {"name": "magnitude", "version": 1, "sparsity": "0.5"}}, "prune.sparsity"),
        ({"quantize": 4}, "quantize"),
    ],
)
def test_bad_json_names_the_key(change: dict, key: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe.from_json(Recipe().to_json() | change)
    assert error.value.key == key


def test_a_method_fits_only_its_slot() -> None:
    with pytest.raises(UserError, match=r"^prune=.*magnitude"):
        Recipe(prune=Uniform(4))


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (Recipe(), "dense"),
        (Recipe(Magnitude(0.6, "global"), Uniform(4)), "prune 60 % global, 4 bit row"),
        (Recipe(quantize=Uniform(8, "tensor", symmetric=True)), "8 bit tensor symmetric"),
        (Recipe(prune=Magnitude(0.125, embeddings=False)), "prune 12.5 % global without embeddings"),
    ],
)
def test_describe(recipe: Recipe, text: str) -> None:
    assert recipe.describe() == text


def test_the_head_is_compressed_unless_said_otherwise() -> None:
    """A recipe that says nothing has the form, and so the id, from before there was the key."""
    whole, outside = (Recipe(Magnitude(0.5), Uniform(4), compress_head=each) for each in (True, False))
    assert "compress_head" not in whole.to_config() and "compress_head" not in whole.to_json()
    assert outside.to_config() == {**whole.to_config(), "compress_head": False} and outside != whole
    for recipe in (whole, outside):
        assert Recipe.from_json(recipe.to_json()) == Recipe.from_config(**recipe.to_config()) == recipe
    assert outside.describe() == "prune 50 % global, 4 bit row, head whole"
    assert Recipe(structure=Heads(0.5), compress_head=False) == Recipe(structure=Heads(0.5)), "it acts on no head"
    with pytest.raises(UserError, match="compress_head=maybe is not valid: must be true or false"):
        Recipe.from_config({"name": "none"}, {"name": "none"}, compress_head="maybe")  # type: ignore[arg-type]


def test_codes_take_fixed_bits_unless_said_otherwise() -> None:
    """As above, for ``entropy_coding``."""
    fixed, coded = Recipe(Magnitude(0.5), Uniform(4)), Recipe(Magnitude(0.5), Uniform(4), entropy_coding="zstd")
    assert "entropy_coding" not in fixed.to_config() and "entropy_coding" not in fixed.to_json()
    assert coded.to_config() == {**fixed.to_config(), "entropy_coding": "zstd"} and coded != fixed
    for recipe in (fixed, coded):
        assert Recipe.from_json(recipe.to_json()) == Recipe.from_config(**recipe.to_config()) == recipe
    assert coded.describe() == "prune 50 % global, 4 bit row, zstd"
    assert Recipe(entropy_coding="zstd") == Recipe(), "floats are not coded"
    with pytest.raises(UserError, match="entropy_coding=zip is not valid: must be one of none, zstd"):
        Recipe.from_config({"name": "none"}, {"name": "none"}, entropy_coding="zip")  # type: ignore[arg-type]


def test_every_method_is_under_its_own_name() -> None:
    for slot, methods in METHODS.items():
        for name, kind in methods.items():
            assert (kind.slot, kind.name) == (slot, name)


def test_describing_needs_no_torch() -> None:
    code = "import sys, trainlarge.compression as m; m.Recipe(m.Magnitude(0.5)); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _without_idle_pruning(recipe: Recipe) -> Recipe:
    return Recipe(recipe.prune if recipe.prune and recipe.prune.to_json()["sparsity"] else None, recipe.quantize)


def _group(method: Method | None) -> dict[str, object]:
    if method is None:
        return {"name": "none"}
    return {key: value for key, value in method.to_json().items() if key != "version"}
