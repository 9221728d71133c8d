"""Every method that changes shapes, on every family: the logits of the explicit model, a whole file, exact counts."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Compressed, Recipe, compress, load_packed, save_packed
from trainlarge.compression.layout.encoder import find_encoder
from trainlarge.compression.layout.tokens import TokenFacts, renumbered
from trainlarge.config.factorize import FixedRank, LowRank
from trainlarge.config.method import METHODS, Method
from trainlarge.config.structure import Choice, Heads, LayerList, Layers, Neurons
from trainlarge.config.vocabulary import Frequent, TokenList
from trainlarge.models.families import FAMILIES

from .conftest import DEPTH, HEADS, NEURONS, VOCABULARY, WIDTH, made, make_idle

PARTS: list[Method] = [
    *[Heads(0.5, importance=importance) for importance in ("weight", "gradient")],
    Heads(0.5, "global"),
    *[Neurons(0.3, importance=importance) for importance in ("weight", "gradient")],
    Neurons(0.3, "global"),
    *[Layers(0.5, choice) for choice in get_args(Choice)],
    LayerList((0, 2, 3)),
    LowRank(0.5),
    LowRank(0.5, "energy"),
    FixedRank(5),
    Frequent(20),
    TokenList((9, 40, 59)),
]


@pytest.fixture(params=PARTS, ids=lambda part: part.describe())
def part(request: pytest.FixtureRequest) -> Method:
    return request.param


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def test_no_method_is_missing() -> None:
    known = {kind for slot in ("vocabulary", "structure", "factorize") for kind in METHODS[slot].values()}
    assert {type(part) for part in PARTS} == known


def test_logits_are_those_of_the_explicit_model(family: str, part: Method, tokens: Tensor, facts: TokenFacts) -> None:
    """In double precision: the function is the same, whatever the order of sums."""
    whole = made(family).double()
    compressed = _compressed(whole, part, tokens, facts)
    assert compressed.has_other_shapes
    read, kept = _as_read(compressed, tokens)
    with torch.no_grad():
        found = compressed.model()(renumbered(tokens, compressed.left.structure.tokens)).logits
        # With the removed entries as 0, a residual block that lost all of its layer hands on what it is given, but for
        # the norm after each block of BERT.
        if family == "bert" and (layers := compressed.left.structure.layers) is not None:
            make_idle(whole, [layer for layer in range(DEPTH) if layer not in layers])
        whole.load_state_dict(compressed.expanded(), strict=False)
        whole.tie_weights()
        torch.testing.assert_close(found, whole(read).logits[..., kept], atol=1e-5, rtol=1e-5)


def test_a_file_gives_back_the_same_bits(
    family: str, part: Method, tokens: Tensor, facts: TokenFacts, tmp_path: Path
) -> None:
    compressed = _compressed(made(family), part, tokens, facts)
    save_packed(tmp_path / "packed", compressed)
    assert (tmp_path / "packed").stat().st_size == compressed.sizes.file_bytes
    ids = renumbered(tokens, compressed.left.structure.tokens)
    with torch.no_grad():
        expected = compressed.model()(ids).logits
        assert torch.equal(load_packed(tmp_path / "packed")(ids).logits, expected)
        assert torch.equal(load_packed(tmp_path / "packed", made(family))(ids).logits, expected)


def test_counts_are_those_of_the_formulas(family: str, part: Method, tokens: Tensor, facts: TokenFacts) -> None:
    whole = made(family)
    compressed = _compressed(whole, part, tokens, facts)
    before, after = whole.num_parameters(), compressed.sizes.parameters
    assert compressed.model().num_parameters() == after
    assert before - after == _removed(whole, compressed, FAMILIES[family].ffn_matrices)


def _removed(whole: PreTrainedModel, compressed: Compressed, ffn_matrices: int) -> int:
    """Parameters that go, from what is left of the shapes: matrices of width h, biases where the family has them."""
    left, output = compressed.left.structure, whole.get_output_embeddings()
    biased = whole.get_submodule(find_encoder(whole).heads[0].inputs[0]).bias is not None
    head, removed = WIDTH // HEADS, 0
    if left.heads is not None:
        gone = DEPTH * HEADS - sum(map(len, left.heads))
        removed += gone * (4 * WIDTH * head + 3 * head * biased)
    if left.neurons is not None:
        gone = DEPTH * NEURONS - sum(left.neurons)
        removed += gone * (ffn_matrices * WIDTH + biased)
    if left.tokens is not None:
        removed += (VOCABULARY - len(left.tokens.kept)) * (WIDTH + (output.bias is not None))
    if left.layers is not None:
        layers = {index: 0 for index in range(DEPTH) if index not in left.layers}
        assert layers
        names = [name for name, _ in whole.named_parameters() for index in layers if f"layer.{index}." in name
                 or f"layers.{index}." in name]  # fmt: skip
        removed += sum(whole.get_parameter(name).numel() for name in names)
    for name, rank in left.ranks.items():
        rows, columns = whole.get_submodule(name).weight.shape
        removed += rows * columns - rank * (rows + columns)
    return removed


def _compressed(whole: PreTrainedModel, part: Method, tokens: Tensor, facts: TokenFacts) -> Compressed:
    batches = [{"input_ids": tokens, "labels": tokens}]
    return compress(whole, Recipe(**{part.slot: part}), calibration=batches, tokens=facts)


def _as_read(compressed: Compressed, tokens: Tensor) -> tuple[Tensor, list[int]]:
    """The tokens as a model of the whole vocabulary has to read them, and the numbers that are left to predict."""
    left = compressed.left.structure.tokens
    if left is None:
        return tokens, list(range(VOCABULARY))
    return torch.tensor(left.kept)[renumbered(tokens, left)], list(left.kept)
