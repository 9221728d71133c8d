"""Factorization: the best approximation of its rank, in the model and in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from trainlarge.compression import Recipe, Weights, compress, load_packed, save_packed
from trainlarge.compression.structure.methods.low_rank import decomposed, rank_of
from trainlarge.config.factorize import FixedRank, LowRank
from trainlarge.errors import UserError
from trainlarge.models.forward import library_logits, logits_at

METHODS = [LowRank(0.5), LowRank(0.7, "energy"), FixedRank(3), LowRank(0.5, embeddings=False)]
by_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.describe())


@by_method
def test_the_error_is_the_singular_values_left_out(encoder: PreTrainedModel, method: LowRank) -> None:
    before = Weights.of(encoder)
    compressed = compress(encoder, Recipe(factorize=method))
    ranks, after = compressed.left.structure.ranks, compressed.expanded()
    assert ranks
    for module, rank in ranks.items():
        values = torch.linalg.svdvals(before.tensors[f"{module}.weight"].double())
        error = (after[f"{module}.weight"] - before.tensors[f"{module}.weight"]).double().square().sum()
        torch.testing.assert_close(error, values[rank:].square().sum(), rtol=1e-4, atol=1e-8)
    same = [name for name in before.tensors if name.removesuffix(".weight") not in ranks]
    assert all(torch.equal(after[name], before.tensors[name]) for name in same)


@by_method
def test_the_model_computes_with_the_products(encoder: PreTrainedModel, tokens: Tensor, method: LowRank) -> None:
    compressed = compress(encoder, Recipe(factorize=method))
    smaller, positions = compressed.model(), torch.tensor([[1, 5], [0, 15], [3, 4]])
    assert compressed.sizes.parameters == smaller.num_parameters() < encoder.num_parameters()
    with torch.no_grad():
        logits = smaller(tokens).logits
        fast, library = (forward(smaller, tokens, positions) for forward in (logits_at, library_logits))
        torch.testing.assert_close(fast, library, atol=1e-4, rtol=1e-4)
        encoder.load_state_dict(compressed.expanded(), strict=False)
        torch.testing.assert_close(logits, encoder(tokens).logits, atol=1e-4, rtol=1e-4)


def test_embeddings_can_stay_whole(encoder: PreTrainedModel) -> None:
    weights = Weights.of(encoder)
    kept = compress(encoder, Recipe(factorize=LowRank(0.5, embeddings=False))).weights
    assert all(torch.equal(kept[name], weights.tensors[name]) for name in weights.embeddings)
    cut = compress(encoder, Recipe(factorize=LowRank(0.5))).left
    assert weights.tables.embedding in cut.structure.ranks
    assert f"{weights.tables.embedding}.up.weight" in cut.embeddings


@pytest.mark.parametrize("embeddings", [True, False])
def test_the_table_of_an_encoder_decoder_stays_whole(tokens: Tensor, embeddings: bool, tmp_path: Path) -> None:
    shape = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 40}
    model = BartForConditionalGeneration(BartConfig(vocab_size=60, d_model=24, **shape, **heads)).eval()
    compressed = compress(model, Recipe(factorize=LowRank(0.5, embeddings=embeddings)))
    save_packed(tmp_path / "packed", compressed)
    smaller = load_packed(tmp_path / "packed")
    own = {name for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)} - {"lm_head"}
    assert set(compressed.left.structure.ranks) == own
    assert torch.equal(smaller.get_input_embeddings().weight, model.get_input_embeddings().weight)
    with torch.no_grad():
        logits = smaller(tokens).logits
        model.load_state_dict(compressed.expanded(), strict=False)
        torch.testing.assert_close(logits, model(tokens).logits, atol=1e-5, rtol=1e-5)


def test_a_tied_output_matrix_stays_tied(encoder: PreTrainedModel) -> None:
    smaller = compress(encoder, Recipe(factorize=FixedRank(4))).model()
    table, output = smaller.get_input_embeddings(), smaller.get_output_embeddings()
    is_tied = encoder.config.tie_word_embeddings
    assert (table.up.weight is output.up.weight) == (table.down.weight is output.down.weight) == is_tied


def test_what_would_not_become_smaller_stays_whole(encoder: PreTrainedModel) -> None:
    compressed = compress(encoder, Recipe(factorize=FixedRank(24)))
    assert not compressed.left.structure
    assert compressed.sizes.parameters == encoder.num_parameters()


def test_the_file_holds_the_factors(encoder: PreTrainedModel, tmp_path: Path) -> None:
    whole, half = compress(encoder, Recipe()), compress(encoder, Recipe(factorize=FixedRank(2)))
    save_packed(tmp_path / "packed", half)
    assert (tmp_path / "packed").stat().st_size == half.sizes.file_bytes < whole.sizes.file_bytes


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))


@given(shapes, st.floats(0.01, 1))
def test_ranks_keep_what_they_say(shape: tuple[int, int, int], keep: float) -> None:
    rows, columns, seed = shape
    tensor = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    values = decomposed(tensor).values
    rank = rank_of(LowRank(keep), values, rows, columns)
    assert rank == 1 or rank * (rows + columns) <= keep * rows * columns < (rank + 1) * (rows + columns)
    rank = rank_of(LowRank(keep, "energy"), values, rows, columns)
    energy = values.square()
    assert energy[:rank].sum() >= keep * energy.sum() * (1 - 1e-12)
    assert rank == 1 or energy[: rank - 1].sum() < keep * energy.sum()


@pytest.mark.parametrize(
    ("group", "key"),
    [
        ({"name": "svd", "keep": 0}, "keep"),
        ({"name": "svd", "keep": 0.5, "by": "size"}, "by"),
        ({"name": "svd_rank", "rank": 0}, "rank"),
        ({"name": "svd_rank", "rank": 1.5}, "rank"),
        ({"name": "svd_rank"}, "rank"),
    ],
)
def test_bad_fields_are_named(group: dict, key: str) -> None:
    with pytest.raises(UserError, match=rf"^factorize.{key}="):
        Recipe.from_config(factorize=group)
