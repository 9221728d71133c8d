"""The vocabulary: what is left predicts as before, among the tokens that are left."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression import Recipe, compress, load_packed, save_packed
from trainlarge.compression.layout.shapes import Tokens
from trainlarge.compression.layout.tokens import TokenFacts, removed_share, renumbered, renumbered_batch
from trainlarge.config.factorize import FixedRank
from trainlarge.config.vocabulary import Frequent, TokenList
from trainlarge.errors import UserError
from trainlarge.models.forward import library_logits, logits_at

from .conftest import VOCABULARY, made


def test_logits_are_those_of_the_tokens_that_are_left(
    encoder: PreTrainedModel, tokens: Tensor, facts: TokenFacts
) -> None:
    compressed = compress(encoder, Recipe(vocabulary=Frequent(20)), tokens=facts)
    left = compressed.left.structure.tokens
    assert left.kept == (0, 1, 2, 3, *range(VOCABULARY - 16, VOCABULARY))
    smaller, new = compressed.model(), renumbered(tokens, left)
    read = torch.tensor(left.kept)[new]
    with torch.no_grad():
        expected = encoder(read).logits[..., list(left.kept)]
        torch.testing.assert_close(smaller(new).logits, expected, atol=1e-5, rtol=1e-5)
        positions = torch.tensor([[1, 5], [0, 15], [3, 4]])
        fast, library = (forward(smaller, new, positions) for forward in (logits_at, library_logits))
        torch.testing.assert_close(fast, library, atol=1e-5, rtol=1e-5)
    assert smaller.config.vocab_size == len(left.kept)
    assert smaller.kept_tokens.tolist() == list(left.kept)
    assert compressed.sizes.parameters == smaller.num_parameters()


def test_after_the_embedding_was_factorized(encoder: PreTrainedModel, tokens: Tensor, facts: TokenFacts) -> None:
    recipe = Recipe(vocabulary=Frequent(20), factorize=FixedRank(3), order=("factorize", "vocabulary"))
    compressed = compress(encoder, recipe, tokens=facts)
    whole = compress(encoder, Recipe(factorize=FixedRank(3))).model()
    left = compressed.left.structure.tokens
    new = renumbered(tokens, left)
    with torch.no_grad():
        expected = whole(torch.tensor(left.kept)[new]).logits[..., list(left.kept)]
        torch.testing.assert_close(compressed.model()(new).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_list_keeps_special_tokens_too(encoder: PreTrainedModel, facts: TokenFacts) -> None:
    left = compress(encoder, Recipe(vocabulary=TokenList([40, 9])), tokens=facts).left.structure.tokens
    assert left.kept == (0, 1, 2, 3, 9, 40)


def test_all_tokens_change_nothing(encoder: PreTrainedModel, facts: TokenFacts) -> None:
    compressed = compress(encoder, Recipe(vocabulary=Frequent(VOCABULARY)), tokens=facts)
    assert not compressed.has_other_shapes


kept = st.sets(st.integers(0, 19), min_size=1).map(sorted)


@given(kept, st.data())
def test_renumbering_keeps_what_is_left(kept: list[int], data: st.DataObject) -> None:
    tokens = Tokens(tuple(kept), 20, data.draw(st.sampled_from(kept)))
    assert Tokens.from_json(tokens.to_json()) == tokens
    ids = torch.tensor(data.draw(st.lists(st.integers(-100, 19), min_size=1)))
    back = torch.where(ids < 0, ids, torch.tensor(kept)[renumbered(ids, tokens).clamp(min=0)])
    expected = [token if token < 0 or token in kept else tokens.unknown for token in ids.tolist()]
    assert back.tolist() == expected
    read = ids[ids >= 0]
    if len(read):
        removed = sum(token not in kept for token in read.tolist())
        assert removed_share(read, tokens) == pytest.approx(removed / len(read))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Frequent(4), "vocabulary.size=4 is not valid: must be more than the 4 tokens"),
        (Frequent(61), "vocabulary.size=61"),
        (TokenList([60]), "vocabulary.tokens=60 is not valid: must be numbers from 0 to 59"),
    ],
)
def test_sizes_that_do_not_fit(
    encoder: PreTrainedModel, facts: TokenFacts, method: Frequent | TokenList, message: str
) -> None:
    with pytest.raises(UserError) as error:
        compress(encoder, Recipe(vocabulary=method), tokens=facts)
    assert str(error.value).startswith(message)


def test_without_counts(encoder: PreTrainedModel, plainest: torch.nn.Module, facts: TokenFacts) -> None:
    with pytest.raises(UserError, match=r"^tokens=None is not valid: must be the TokenFacts"):
        compress(encoder, Recipe(vocabulary=Frequent(20)))
    with pytest.raises(UserError, match=r"^vocabulary.name=frequent=Plainest"):
        compress(plainest, Recipe(vocabulary=Frequent(20)), tokens=facts)


@pytest.mark.parametrize("tokens", [[], [1, 1], [-1], ["a"], None])
def test_lists_that_are_none(tokens: object) -> None:
    with pytest.raises(UserError, match=r"^vocabulary.tokens="):
        TokenList(tokens)


@pytest.mark.parametrize("name", ["modern", "bert", "distilbert"])
@pytest.mark.parametrize("factorize", [None, FixedRank(3)])
def test_a_padding_token_of_a_high_number_moves(
    name: str, factorize: FixedRank | None, tokens: Tensor, facts: TokenFacts, tmp_path: Path
) -> None:
    whole, order = _padded(name, 50), ("factorize", "vocabulary") if factorize else ("vocabulary",)
    compressed = compress(whole, Recipe(vocabulary=TokenList([9, 55]), factorize=factorize, order=order), tokens=facts)
    left, smaller = compressed.left.structure.tokens, compressed.model()
    assert left.kept == (0, 1, 2, 3, 9, 50, 55)
    assert smaller.get_input_embeddings().padding_idx == smaller.config.pad_token_id == left.kept.index(50)
    before, new = compress(whole, Recipe(factorize=factorize)).model(), renumbered(tokens, left)
    save_packed(tmp_path / "packed", compressed)
    with torch.no_grad():
        expected = before(torch.tensor(left.kept)[new]).logits[..., list(left.kept)]
        torch.testing.assert_close(smaller(new).logits, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(load_packed(tmp_path / "packed")(new).logits, smaller(new).logits)


def test_positions_that_are_counted_from_padding_keep_its_number(tokens: Tensor, facts: TokenFacts) -> None:
    whole = _padded("roberta", 7)
    compressed = compress(whole, Recipe(vocabulary=TokenList([9, 55])), tokens=facts)
    left, smaller = compressed.left.structure.tokens, compressed.model()
    assert left.kept == (*range(8), 9, 55)
    new = renumbered(tokens, left)
    with torch.no_grad():
        expected = whole(torch.tensor(left.kept)[new]).logits[..., list(left.kept)]
        torch.testing.assert_close(smaller(new).logits, expected, atol=1e-5, rtol=1e-5)


def _padded(name: str, padding: int) -> PreTrainedModel:
    """A model with the padding token of this number."""
    config = copy.deepcopy(made(name).config)
    config.pad_token_id = padding
    torch.manual_seed(0)
    return type(made(name))(config).eval()


@pytest.mark.parametrize(
    ("batch", "labels"),
    [
        ({"labels": torch.tensor([[5, -100], [-100, 7]])}, [[1, -100], [-100, 2]]),
        ({"labels": torch.tensor([[5], [7]]), "is_token": True}, [[1], [2]]),
        ({"labels": torch.tensor([5, 7])}, [5, 7]),
        ({"labels": torch.tensor([[5], [7]])}, [[5], [7]]),
    ],
    ids=["tokens", "one token per row", "classes", "classes in a column"],
)
def test_labels_that_are_classes_are_no_tokens(batch: dict[str, Any], labels: list[Any]) -> None:
    tokens = Tokens(size=9, kept=(0, 5, 7), unknown=0)
    is_token = batch.pop("is_token", None)
    changed = renumbered_batch({"input_ids": torch.tensor([[5, 3], [7, 0]]), **batch}, tokens, is_token)
    assert changed["input_ids"].tolist() == [[1, 0], [2, 0]]
    assert changed["labels"].tolist() == labels
