"""What the sizes of a model say of a recipe before the model exists is what its weights say of it later."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from trainlarge.compression import compress
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.config.factorize import FixedRank
from trainlarge.config.model_sizes import ModelSizes
from trainlarge.config.prune import Magnitude
from trainlarge.config.recipe import Recipe
from trainlarge.config.structure import Heads, LayerList, Layers, Neurons
from trainlarge.config.vocabulary import Frequent, TokenList
from trainlarge.errors import UserError
from trainlarge.models.build import build_model
from trainlarge.models.shape import Shape
from trainlarge.models.sizes import sizes_of, sizes_of_folder

SHAPES = [Shape(name, 24, 2, 2, 2.0, 300, 33) for name in ("modern", "roberta", "llama")]


def pruned(m: int, **others: bool) -> Magnitude:
    return Magnitude(sparsity=0.5, scope="block", m=m, **others)


RECIPES = [
    Recipe(prune=pruned(8)),
    Recipe(prune=pruned(16)),
    Recipe(prune=pruned(16, embeddings=False)),
    Recipe(structure=Heads(keep=0.5), prune=pruned(8)),
    Recipe(structure=Heads(keep=0.5, scope="global"), prune=pruned(4)),
    Recipe(structure=Neurons(keep=0.25), prune=pruned(8)),
    Recipe(structure=Neurons(keep=0.5), prune=pruned(8)),
    Recipe(structure=Neurons(keep=0.25), prune=pruned(8), order=("prune", "structure")),
    Recipe(structure=Layers(keep=0.5), prune=pruned(8)),
    Recipe(structure=LayerList(layers=(0, 1))),
    Recipe(structure=LayerList(layers=(0, 2))),
    Recipe(vocabulary=Frequent(size=4)),
    Recipe(vocabulary=Frequent(size=300)),
    Recipe(vocabulary=Frequent(size=301)),
    Recipe(vocabulary=TokenList(tokens=(7, 299))),
    Recipe(vocabulary=TokenList(tokens=(7, 300))),
]


def outcome(act: object) -> tuple[str, object] | None:
    """Key and value of the error of a call; None where all goes well."""
    try:
        act()  # type: ignore[operator]
    except UserError as error:
        return error.key, error.value
    return None


def both(recipe: Recipe, model: PreTrainedModel, sizes: ModelSizes) -> tuple[tuple[str, object] | None, ...]:
    tokens = TokenFacts(torch.ones(300, dtype=torch.int64), frozenset(range(4)), 3)
    return outcome(lambda: recipe.check_fit(sizes)), outcome(lambda: compress(model, recipe, tokens=tokens))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_of_a_shape(shape: Shape) -> None:
    model = build_model(shape, init_std=0.02, seed=0, attention="eager")
    found = [both(recipe, model, sizes_of(shape)) for recipe in RECIPES]
    assert [foreseen for foreseen, _ in found] == [real for _, real in found]
    assert sum(real is not None for _, real in found) == 8


def test_what_the_weights_decide_is_left_to_them() -> None:
    Recipe(factorize=FixedRank(rank=5), prune=pruned(8)).check_fit(sizes_of(SHAPES[0]))
    Recipe(structure=Heads(keep=0.5, scope="global"), prune=pruned(8)).check_fit(sizes_of(SHAPES[0]))


def test_of_a_folder(tmp_path: Path) -> None:
    bert = BertForMaskedLM(
        BertConfig(vocab_size=300, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    )
    bert.save_pretrained(tmp_path / "bert")
    small = T5Config(vocab_size=300, d_model=24, d_kv=8, d_ff=48, num_layers=2, num_heads=3)
    t5 = T5ForConditionalGeneration(small)
    t5.save_pretrained(tmp_path / "t5")
    for recipe in [recipe for recipe in RECIPES if recipe.vocabulary is None]:
        for model, name in ((bert, "bert"), (t5, "t5")):
            keys = [error and error[0] for error in both(recipe, model, sizes_of_folder(tmp_path / name))]
            # How many heads there are is not known of a folder: what is left after a cut is not foreseen.
            is_cut = isinstance(recipe.structure, Heads | Neurons) and name == "bert"
            assert keys[0] == keys[1] or (is_cut and keys[0] is None), (name, recipe)
    (tmp_path / "bert" / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="a whole file of weights"):
        sizes_of_folder(tmp_path / "bert")
