"""Recipes that begin with quantization keep the codes: files as small as in the natural order, the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from trainlarge.compression import (
    Compressed,
    Dynamic,
    Magnitude,
    Recipe,
    Uniform,
    compress,
    load_packed_weights,
    save_packed,
)
from trainlarge.compression.layout.tokens import TokenFacts
from trainlarge.compression.stored.codebook import Codebook
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.keep_codes import prune_codes
from trainlarge.config.quantize import Binary, KMeans, Outliers, Ternary
from trainlarge.config.structure import Heads, Layers, Neurons
from trainlarge.config.vocabulary import Frequent

from ..stored.test_encodings import stored_tensors
from .conftest import made

QUANTIZE = [
    Uniform(4),
    Uniform(3, "tensor", symmetric=True),
    Uniform(4, "group", group_size=8),
    KMeans(4),
    KMeans(4, "row"),
    Ternary(),
    Ternary("row"),
    Binary(),
    Outliers(4),
]
ROWS_AND_COLUMNS = [method for method in QUANTIZE if getattr(method, "granularity", "") != "group"]
by_method = pytest.mark.parametrize("quantize", QUANTIZE, ids=lambda method: method.describe())
few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(stored=stored_tensors(), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_zeroed_codes_are_the_pruned_weights(stored: object, share: float, seed: int) -> None:
    """Whatever is pruned, not only the smallest weights."""
    values = stored.dense()
    generator = torch.Generator().manual_seed(seed)
    pruned = values.masked_fill(torch.rand(values.shape, generator=generator) < share, 0.0)
    found = prune_codes(stored, Dense(pruned))
    assert torch.equal(found.dense(), pruned)
    assert found.nonzero == torch.count_nonzero(pruned)
    assert type(found) is type(stored) or isinstance(stored, Codebook)


@by_method
def test_pruning_after_quantization_costs_no_bytes(encoder: PreTrainedModel, quantize: Uniform, tmp_path: Path) -> None:
    parts = {"prune": Magnitude(0.6, "tensor"), "quantize": quantize}
    first, natural = compress(encoder, Recipe(**parts, order=("quantize", "prune"))), compress(encoder, Recipe(**parts))
    _assert_all_codes(first)
    _assert_no_larger(first, natural)
    _assert_round_trip(first, tmp_path)


@pytest.mark.parametrize("quantize", ROWS_AND_COLUMNS, ids=lambda method: method.describe())
@pytest.mark.parametrize("structure", [Neurons(0.5), Heads(0.5), Layers(0.5)], ids=lambda method: method.describe())
def test_removal_after_quantization_costs_no_bytes(structure: Neurons, quantize: Uniform, tmp_path: Path) -> None:
    parts = {"vocabulary": Frequent(30), "structure": structure, "quantize": quantize}
    facts = TokenFacts(torch.arange(60), special=frozenset(range(4)), unknown=3)
    order = ("quantize", "vocabulary", "structure")
    first = compress(made("bert"), Recipe(**parts, order=order), tokens=facts)
    natural = compress(made("bert"), Recipe(**parts), tokens=facts)
    _assert_all_codes(first)
    _assert_no_larger(first, natural)
    assert first.sizes.nonzero_parameters == natural.sizes.nonzero_parameters, "zeros by rounding count"
    _assert_round_trip(first, tmp_path)
    expected = compress(made("bert"), Recipe(quantize=quantize)).weights
    for name, tensor in first.expanded().items():
        assert ((tensor == expected[name]) | (tensor == 0)).all()


def test_all_three_in_turn(tmp_path: Path) -> None:
    parts = {"prune": Magnitude(0.5), "structure": Neurons(0.5), "quantize": KMeans(4)}
    for order in (("quantize", "prune", "structure"), ("prune", "quantize", "structure")):
        found = compress(made("modern"), Recipe(**parts, order=order))
        _assert_all_codes(found)
        assert found.sizes.ideal_bytes < 1.1 * compress(made("modern"), Recipe(**parts)).sizes.ideal_bytes
        _assert_round_trip(found, tmp_path)


def test_columns_taken_out_of_groups_are_floats_and_counted_as_such(tmp_path: Path) -> None:
    parts = {"quantize": Uniform(4, "group", group_size=8), "structure": Neurons(0.5)}
    found = compress(made("bert"), Recipe(**parts, order=("quantize", "structure")))
    plain = {name for name in found.left.matrices if isinstance(found.packed.stored[name], Dense)}
    assert plain == {f"bert.encoder.layer.{layer}.output.dense.weight" for layer in range(4)}
    _assert_round_trip(found, tmp_path)


@pytest.mark.parametrize("last", [Magnitude(0.5), Neurons(0.5)], ids=lambda method: method.name)
def test_inputs_are_rounded_where_weights_are_codes(last: Magnitude) -> None:
    parts = {last.slot: last, "quantize": KMeans(4, embeddings=False), "activations": Dynamic()}
    first = compress(made("bert"), Recipe(**parts, order=("quantize", last.slot, "activations")))
    natural = compress(made("bert"), Recipe(**parts))
    assert first.packed.ranges == natural.packed.ranges
    assert "cls.predictions.decoder" not in first.packed.ranges


def _assert_all_codes(found: Compressed) -> None:
    assert not [name for name in found.left.matrices if isinstance(found.packed.stored[name], Dense)]


def _assert_no_larger(found: Compressed, natural: Compressed) -> None:
    """But for an outlier: which weights are outliers may differ by the order."""
    slack = 1.2 if any(isinstance(stored, DensePlusSparse) for stored in found.packed.stored.values()) else 1.03
    assert found.sizes.ideal_bytes <= slack * natural.sizes.ideal_bytes
    assert found.sizes.file_bytes <= slack * natural.sizes.file_bytes


def _assert_round_trip(found: Compressed, tmp_path: Path) -> None:
    save_packed(tmp_path / "packed", found)
    assert (tmp_path / "packed").stat().st_size == found.sizes.file_bytes
    loaded = load_packed_weights(tmp_path / "packed")
    assert loaded.keys() == found.weights.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in found.weights.items())
