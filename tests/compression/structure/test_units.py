"""Heads and neurons: the smaller model is the masked one, in our forward pass and in the library's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Compressed, Recipe, Weights, compress
from trainlarge.compression.layout.encoder import Block, find_encoder
from trainlarge.compression.structure.cut import keep_units
from trainlarge.compression.structure.importance import weight_importance
from trainlarge.compression.structure.methods.units import keep_globally, keep_in_layers
from trainlarge.config.structure import Heads, Neurons, Units
from trainlarge.errors import UserError
from trainlarge.models.forward import library_logits, logits_at

from .conftest import DEPTH, HEADS, NEURONS

METHODS = [
    Heads(0.5),
    Heads(0.6, scope="global"),
    Neurons(0.3),
    Neurons(0.45, scope="global"),
    Heads(0.6, scope="global", importance="gradient"),
    Neurons(0.4, importance="gradient"),
]
by_method = pytest.mark.parametrize("method", METHODS, ids=Units.describe)


@by_method
def test_logits_are_those_of_the_masked_model(encoder: PreTrainedModel, tokens: Tensor, method: Units) -> None:
    compressed = compress(encoder, Recipe(structure=method), calibration=_labelled(tokens))
    smaller = compressed.model()
    with torch.no_grad(), _masked(encoder, compressed, method.name):
        torch.testing.assert_close(smaller(tokens).logits, encoder(tokens).logits, atol=1e-5, rtol=1e-5)


@by_method
def test_the_fast_forward_pass_agrees(encoder: PreTrainedModel, tokens: Tensor, method: Units) -> None:
    smaller = compress(encoder, Recipe(structure=method), calibration=_labelled(tokens)).model()
    positions = torch.tensor([[1, 5], [0, 15], [3, 4]])
    with torch.no_grad():
        expected = library_logits(smaller, tokens, positions)
        torch.testing.assert_close(logits_at(smaller, tokens, positions), expected, atol=1e-5, rtol=1e-5)


@by_method
def test_counts_are_those_of_the_model(encoder: PreTrainedModel, tokens: Tensor, method: Units) -> None:
    compressed = compress(encoder, Recipe(structure=method), calibration=_labelled(tokens))
    smaller = compressed.model()
    assert compressed.sizes.parameters == smaller.num_parameters() < encoder.num_parameters()
    found = find_encoder(smaller)
    total, blocks = DEPTH * {"heads": HEADS, "neurons": NEURONS}[method.name], getattr(found, method.name)
    assert sum(block.units for block in blocks) == round(method.keep * total)
    assert all(block.units >= 1 for block in blocks)


@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_layers_may_have_different_numbers(encoder: PreTrainedModel, tokens: Tensor, kind: str) -> None:
    counts = {"heads": [1, 4, 2, 3], "neurons": [40, 1, 17, 30]}[kind]
    total = {"heads": HEADS, "neurons": NEURONS}[kind]
    generator = torch.Generator().manual_seed(1)
    kept = [torch.randperm(total, generator=generator)[:count].sort().values for count in counts]
    weights = keep_units(Weights.of(encoder), kind, kept)
    with torch.no_grad(), _hooked(encoder, getattr(find_encoder(encoder), kind), kept):
        torch.testing.assert_close(weights.model()(tokens).logits, encoder(tokens).logits, atol=1e-5, rtol=1e-5)


def test_a_model_can_be_cut_in_place(encoder: PreTrainedModel, tokens: Tensor) -> None:
    compressed = compress(encoder, Recipe(structure=Heads(0.5)), inplace=True)
    with torch.no_grad():
        assert torch.equal(encoder(tokens).logits, compressed.model()(tokens).logits)


def test_the_expanded_weights_are_the_masked_model(encoder: PreTrainedModel, tokens: Tensor) -> None:
    compressed = compress(encoder, Recipe(structure=Neurons(0.3)))
    expanded = compressed.expanded()
    original = Weights.of(encoder).tensors
    assert {name: tensor.shape for name, tensor in expanded.items()} == {
        name: tensor.shape for name, tensor in original.items()
    }
    assert all(((new == 0) | (new == original[name])).all() for name, new in expanded.items())


def test_the_importance_of_heads_does_not_follow_the_split_of_scale(encoder: PreTrainedModel) -> None:
    """W_value times c, W_out over c: the same function, and so the same importance."""
    block = find_encoder(encoder).heads[1]
    before = weight_importance(Weights.of(encoder), "heads", block)
    with torch.no_grad():
        value = encoder.get_submodule(block.inputs[-1]).weight
        value[-len(value) // block.parts :] *= 8
        encoder.get_submodule(block.output).weight /= 8
    torch.testing.assert_close(weight_importance(Weights.of(encoder), "heads", block), before)


def test_units_that_nothing_leaves_go_first(encoder: PreTrainedModel) -> None:
    found = find_encoder(encoder)
    with torch.no_grad():
        encoder.get_submodule(found.heads[2].output).weight[:, : found.heads[2].width] = 0
        encoder.get_submodule(found.neurons[0].output).weight[:, [3, 7]] = 0
    left = compress(encoder, Recipe(structure=Heads(0.75))).left.structure
    assert left.heads[2] == (1, 2, 3)
    compressed = compress(encoder, Recipe(structure=Neurons(0.95)))
    [zeros] = ((compressed.expanded()[f"{found.neurons[0].output}.weight"] == 0).all(0).nonzero().T).tolist()
    assert zeros == [3, 7]


def test_gradient_importance_is_the_derivative_by_the_gate(encoder: PreTrainedModel, tokens: Tensor) -> None:
    """Against a finite difference of the loss of each row."""
    from trainlarge.compression.calibration import Calibration
    from trainlarge.compression.registry import Shared
    from trainlarge.compression.structure.calibrated_importance import gate_importance

    encoder = encoder.double()
    batches = _labelled(tokens)
    blocks = find_encoder(encoder).heads
    shared = Shared(calibration=Calibration(Weights.of(encoder), encoder, lambda: batches))
    found = gate_importance(Heads(0.5, importance="gradient"), Weights.of(encoder), shared, blocks)
    gradients = torch.tensor([_by_difference(encoder, batches, blocks[1], head) for head in range(HEADS)])
    torch.testing.assert_close(found[1], (gradients / gradients.norm()).double(), rtol=1e-3, atol=1e-4)


importances = st.lists(
    st.lists(st.floats(0, 10), min_size=1, max_size=6).map(lambda values: torch.tensor(values, dtype=torch.float64)),
    min_size=1,
    max_size=4,
)


@given(importances, st.floats(0.01, 1), st.sampled_from([keep_globally, keep_in_layers]))
def test_the_best_are_kept_and_one_in_each_layer(importance: list[Tensor], share: float, keep: object) -> None:
    kept = keep(importance, share)
    assert all(len(units) >= 1 and units.tolist() == sorted(set(units.tolist())) for units in kept)
    for values, units in zip(importance, kept, strict=True):
        left_out = [value for unit, value in enumerate(values.tolist()) if unit not in units.tolist()]
        assert max(left_out, default=0) <= values[units].min()


@given(importances, st.floats(0.01, 1))
def test_a_global_share_is_exact(importance: list[Tensor], share: float) -> None:
    total = sum(map(len, importance))
    assert sum(map(len, keep_globally(importance, share))) == max(len(importance), round(share * total))


def test_a_model_without_known_layers(plainest: torch.nn.Module) -> None:
    with pytest.raises(UserError, match=r"^structure.name=heads=Plainest is not valid: must be used for a model"):
        compress(plainest, Recipe(structure=Heads(0.5)))


def test_gradients_need_labels(encoder: PreTrainedModel, tokens: Tensor) -> None:
    recipe = Recipe(structure=Heads(0.5, importance="gradient"))
    with pytest.raises(UserError, match=r"^calibration=None"):
        compress(encoder, recipe)
    with pytest.raises(UserError, match=r"^calibration=inputs alone is not valid: must be batches with labels"):
        compress(encoder, recipe, calibration=[tokens])


@pytest.mark.parametrize("keep", [0, -0.1, 1.1, float("nan"), "much", None, True])
def test_shares_out_of_range(keep: object) -> None:
    with pytest.raises(UserError, match=r"^structure.keep=.*(\(0, 1\]|a finite number)"):
        Recipe.from_config(structure={"name": "heads", "keep": keep})


def _labelled(tokens: Tensor) -> list[dict[str, Tensor]]:
    labels = torch.full_like(tokens, -100)
    labels[:, 2:6] = tokens[:, 2:6]
    inputs = tokens.clone()
    inputs[:, 2:6] = 3
    return [{"input_ids": inputs[:2], "labels": labels[:2]}, {"input_ids": inputs[2:], "labels": labels[2:]}]


@contextmanager
def _masked(model: PreTrainedModel, compressed: Compressed, kind: str) -> Iterator[None]:
    """The units that were removed are multiplied by 0 in the whole model."""
    blocks: tuple[Block, ...] = getattr(find_encoder(model), kind)
    left = compressed.expanded()
    kept = [
        left[f"{block.output}.weight"].view(-1, block.units, block.width).any(2).any(0).nonzero().flatten()
        for block in blocks
    ]
    with _hooked(model, blocks, kept):
        yield


@contextmanager
def _hooked(model: PreTrainedModel, blocks: tuple[Block, ...], kept: list[Tensor]) -> Iterator[None]:
    hooks = [
        model.get_submodule(block.output).register_forward_pre_hook(_times(block, units))
        for block, units in zip(blocks, kept, strict=True)
    ]
    yield
    for hook in hooks:
        hook.remove()


def _times(block: Block, units: Tensor, factor: float = 0.0):  # type: ignore[no-untyped-def]
    gates = torch.full((block.units,), factor).index_fill(0, units, 1.0).repeat_interleave(block.width)
    return lambda module, inputs: (inputs[0] * gates.to(inputs[0].dtype), *inputs[1:])


def _by_difference(model: PreTrainedModel, batches: list[dict[str, Tensor]], block: Block, head: int) -> float:
    others = torch.tensor([unit for unit in range(block.units) if unit != head])
    losses = []
    # Not smaller: Llama's norms compute in fp32 whatever the type of the model.
    for factor in (1 + 3e-3, 1 - 3e-3):
        hook = model.get_submodule(block.output).register_forward_pre_hook(_times(block, others, factor))
        losses.append([_row_losses(model, batch) for batch in batches])
        hook.remove()
    return sum(float((above - below).abs().sum()) for above, below in zip(*losses, strict=True)) / 6e-3


@torch.no_grad()
def _row_losses(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    logits = model(batch["input_ids"]).logits
    return torch.stack(
        [torch.nn.functional.cross_entropy(row, labels) for row, labels in zip(logits, batch["labels"], strict=True)]
    )
