"""Layers: which go, and that the model without them is the one in which they do nothing."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Recipe, Weights, compress
from trainlarge.compression.calibration import Calibration
from trainlarge.compression.layout.encoder import find_encoder
from trainlarge.compression.registry import Shared
from trainlarge.compression.structure.calibrated_importance import layer_similarity
from trainlarge.compression.structure.methods.layers import removal_order
from trainlarge.config.structure import Choice, LayerList, Layers
from trainlarge.errors import UserError
from trainlarge.models.families import FAMILIES
from trainlarge.models.forward import library_logits, logits_at

from .conftest import DEPTH, made, make_idle


@pytest.mark.parametrize(
    ("method", "left"),
    [
        (Layers(0.5), (0, 1)),
        (Layers(0.5, "bottom"), (2, 3)),
        (Layers(0.5, "alternate"), (1, 3)),
        (Layers(0.25, "alternate"), (1,)),
        (Layers(0.5, "symmetric"), (0, 3)),
        (Layers(0.75, "symmetric"), (0, 1, 3)),
        (Layers(0.01), (0,)),
        (LayerList([1, 2]), (1, 2)),
        (LayerList([3]), (3,)),
    ],
)
def test_the_layers_that_are_left(
    encoder: PreTrainedModel, tokens: Tensor, method: Layers | LayerList, left: tuple[int, ...]
) -> None:
    compressed = compress(encoder, Recipe(structure=method))
    smaller, positions = compressed.model(), torch.tensor([[1, 5], [0, 15], [3, 4]])
    assert compressed.left.structure.layers == left
    assert compressed.sizes.parameters == smaller.num_parameters()
    assert smaller.config.num_hidden_layers == find_encoder(smaller).depth == len(left)
    with torch.no_grad():
        logits = smaller(tokens).logits
        fast, library = (forward(smaller, tokens, positions) for forward in (logits_at, library_logits))
        torch.testing.assert_close(fast, library, atol=1e-5, rtol=1e-5)
        make_idle(encoder, [layer for layer in range(DEPTH) if layer not in left])
        torch.testing.assert_close(logits, encoder(tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_layers_that_do_nothing_go_first_by_contribution(name: str, tokens: Tensor) -> None:
    encoder = made(name)
    with torch.no_grad():
        for block in (find_encoder(encoder).heads[2], find_encoder(encoder).neurons[2]):
            for parameter in encoder.get_submodule(block.output).parameters():
                parameter.mul_(1e-4)
    recipe = Recipe(structure=Layers(0.75, "contribution"))
    assert compress(encoder, recipe, calibration=[tokens]).left.structure.layers == (0, 1, 3)
    with pytest.raises(UserError, match=r"^calibration=None"):
        compress(encoder, recipe)


def test_a_decoder_without_layers_generates_with_cached_keys_and_values(tokens: Tensor) -> None:
    smaller = compress(made("llama"), Recipe(structure=LayerList([1, 3]))).model()
    with torch.no_grad():
        first = smaller(tokens[:, :9], use_cache=True)
        rest = smaller(tokens[:, 9:], past_key_values=first.past_key_values).logits
        torch.testing.assert_close(rest, smaller(tokens).logits[:, 9:], atol=1e-5, rtol=1e-5)


def test_masked_positions_say_nothing_of_the_contribution(encoder: PreTrainedModel, tokens: Tensor) -> None:
    """Positions that nobody looks at: whatever stands there, the similarities are those of the rest."""
    mask = torch.ones_like(tokens)
    mask[:, 9:] = 0
    found = [
        layer_similarity(Layers(0.5, "contribution"), weights, weights.encoder, Shared((), calibration))
        for weights in [Weights.of(encoder)]
        for batch in (tokens, tokens.masked_fill(mask == 0, 5), tokens[:, :9])
        for inputs in [{"input_ids": batch, "attention_mask": mask[:, : batch.shape[1]]}]
        for calibration in [Calibration(weights, encoder, lambda inputs=inputs: [inputs])]
    ]
    torch.testing.assert_close(found[0], found[2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], found[2], atol=1e-5, rtol=1e-5)


@given(
    st.sampled_from([choice for choice in get_args(Choice) if choice != "contribution"]), st.integers(1, 24), st.data()
)
def test_every_layer_is_removed_once_and_results_are_nested(choice: str, depth: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, depth))
    order = removal_order(choice, depth, count)
    removed = order[: depth - count]
    assert len(set(removed)) == depth - count and set(removed) <= set(range(depth))
    if choice != "symmetric":
        assert sorted(order) == list(range(depth))


def test_half_of_twelve_is_the_published_choice() -> None:
    """XTC keeps the teacher's layers 1, 3, 5, 7, 9, 11 for a student of six."""
    assert sorted(set(range(12)) - set(removal_order("alternate", 12, 6)[:6])) == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize("layers", [[], [1, 1], [2, 1], [-1], [0.5], "01", None, [True]])
def test_lists_that_are_none(layers: object) -> None:
    with pytest.raises(UserError, match=r"^structure.layers=.*rising list"):
        LayerList(layers)


def test_a_list_beyond_the_last_layer(encoder: PreTrainedModel) -> None:
    with pytest.raises(UserError, match=r"^structure.layers=\[0, 4\] is not valid: must be numbers from 0 to 3"):
        compress(encoder, Recipe(structure=LayerList([0, 4])))
