"""Encodings: every one gives back the same bits and the bytes it announced; the smallest is taken."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainlarge.compression.methods import min_max
from trainlarge.compression.methods.kmeans import cluster
from trainlarge.compression.methods.outliers import split
from trainlarge.compression.methods.repaired import repair
from trainlarge.compression.methods.signs import binarize, ternarize
from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.stored import container
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.container import TensorSpec
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.encodings import (
    CODED,
    ENCODINGS,
    decoded,
    encoding_named,
    fitting,
    names_in_file,
    smallest,
    smallest_coded,
)
from trainlarge.compression.stored.packing import load_packed_weights
from trainlarge.compression.stored.sizes import entropy_bits
from trainlarge.compression.stored.stored_tensor import StoredTensor
from trainlarge.config.quantize import Binary, KMeans, LowRankRepair, MinMax, Outliers, Ternary, Uniform
from trainlarge.errors import UserError

shapes = st.lists(st.integers(1, 7), min_size=2, max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


specials = st.sampled_from([0.0, -0.0, 1.0, -2.5, math.inf, -math.inf, math.nan, 1e-45, 6e4])


@st.composite
def float_tensors(draw: st.DrawFn) -> Tensor:
    """Dense, sparse, of few values, all zero, empty, in long rows, with -0.0, NaN and infinite values."""
    shape = draw(st.sampled_from([(0, 3), (3, 5), (1, 700), (40, 40), (300, 1), (2, 3, 4)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    floats = torch.randn(shape, generator=generator)
    book = torch.tensor(draw(st.lists(specials, min_size=1, max_size=9)))
    few = book[torch.randint(len(book), shape, generator=generator)]
    floats = torch.where(torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0])), few, floats)
    is_zero = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.9, 0.99, 1.0]))
    return floats.masked_fill(is_zero, 0.0).to(draw(dtypes))


granularities = st.sampled_from(["row", "tensor", "group"])


@st.composite
def stored_tensors(draw: st.DrawFn) -> StoredTensor:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    weights = torch.randn(draw(shapes), generator=generator)
    weights = weights.masked_fill(torch.rand(weights.shape, generator=generator) < draw(st.floats(0, 1)), 0.0)
    return draw(st.sampled_from(MAKERS))(draw, weights.to(draw(dtypes)))


def _affine(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    method = Uniform(draw(st.integers(2, 8)), draw(granularities), draw(st.booleans()), draw(st.integers(1, 8)))
    return quantize(weights, method)


def _offset(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    return min_max.quantize(weights, MinMax(draw(st.integers(2, 8)), draw(granularities), draw(st.integers(1, 8))))


def _outliers(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    return split(weights, Outliers(draw(st.integers(2, 8)), draw(granularities), share=draw(st.floats(0, 0.9))))


def _repaired(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    return repair(weights, LowRankRepair(draw(st.integers(2, 8)), draw(granularities), rank=draw(st.integers(1, 3))))


def _codebook(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    return cluster(weights, KMeans(draw(st.integers(1, 8)), draw(st.sampled_from(["row", "tensor"]))))


def _ternary(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    return ternarize(weights, Ternary(draw(granularities), draw(st.integers(1, 8))))


def _binary(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    return binarize(weights, Binary(draw(granularities), draw(st.integers(1, 8))))


def _pruned(draw: st.DrawFn, weights: Tensor) -> StoredTensor:
    bools = st.lists(st.booleans(), min_size=weights.numel(), max_size=weights.numel())
    return Dense.pruned(weights, torch.tensor(draw(bools)))


MAKERS = [
    lambda draw, weights: Dense(weights),
    _pruned,
    _affine,
    _offset,
    _outliers,
    _repaired,
    _codebook,
    _ternary,
    _binary,
]


@settings(deadline=None)
@given(stored_tensors())
def test_every_encoding_round_trips_and_announces_its_bytes(stored: StoredTensor) -> None:
    for encoding in fitting(stored):
        parts = encoding.encode(stored)
        assert {name: TensorSpec.of(part) for name, part in parts.items()} == encoding.layout(stored)
        assert encoding.bytes(stored) == sum(part.numel() * part.element_size() for part in parts.values())
        decoded = encoding.decode(json.loads(json.dumps(encoding.note(stored))), parts)
        assert _same_bits(decoded.dense(), stored.dense())


@settings(deadline=None)
@given(stored_tensors())
def test_entropy_coding_is_exact_announces_its_bytes_and_never_adds_any(stored: StoredTensor) -> None:
    for plain in fitting(stored):
        coded = CODED[plain.name]
        if not coded.fits(stored):
            assert plain.name == "dense"
            continue
        parts, note = coded.encode(stored), json.loads(json.dumps(coded.full_note(stored)))
        assert {name: TensorSpec.of(part) for name, part in parts.items()} == coded.layout(stored)
        assert coded.bytes(stored) <= plain.bytes(stored)
        assert _same_bits(decoded(note, parts).dense(), stored.dense())
    taken = smallest_coded(stored, "some.weight")
    assert taken.file_bytes(stored, "some.weight") <= smallest(stored, "some.weight").file_bytes(stored, "some.weight")


@pytest.mark.parametrize("granularity", ["tensor", "row"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_entropy_coding_comes_within_one_percent_of_the_entropy(bits: int, granularity: str) -> None:
    weights = torch.randn((512, 512), generator=torch.Generator().manual_seed(bits))
    stored = quantize(weights, Uniform(bits, granularity, range="mse"))  # type: ignore[arg-type]
    coded, entropy = 8 * smallest_coded(stored).layout(stored)["codes"].bytes, entropy_bits([stored])
    assert entropy is not None
    assert 0.999 * entropy * weights.numel() < coded < 1.01 * entropy * weights.numel()


def test_codes_of_rows_are_written_as_differences_to_their_zero_points_where_they_are_entropy_coded() -> None:
    rows = quantize(torch.randn((512, 512), generator=torch.Generator().manual_seed(0)), Uniform(3))
    assert "centred" not in smallest(rows).name and smallest_coded(rows).name == "centred"
    assert smallest_coded(rows).bytes(rows) < 0.97 * CODED["codes"].bytes(rows)
    assert not rows.centred[rows.dense() == 0].any()


def test_entropy_counts_zeros_as_what_is_less() -> None:
    codes = torch.tensor([[0, 1, 2, 3] * 8], dtype=torch.uint8)
    stored = Affine(
        codes=codes, scale=torch.ones(1, 1), zero_point=codes[:, :1], bits=2, dtype=torch.float32, nonzero=24
    )
    assert entropy_bits([stored]) == 2
    by_row = replace(stored, codes=codes.view(4, 8), scale=torch.ones(4, 1), zero_point=codes.view(4, 8)[:, :1])
    assert entropy_bits([by_row]) == 2
    assert entropy_bits([Dense(torch.ones(4))]) is None
    pruned = min_max.quantize(torch.tensor([[0.0, 0.0, 1.0, 2.0]]), MinMax(2))
    assert entropy_bits([pruned]) == 1.5, "a code of a pruned weight means nothing"


@settings(deadline=None)
@given(stored_tensors())
def test_the_smallest_is_taken(stored: StoredTensor) -> None:
    _check_smallest(stored)


@settings(deadline=None, max_examples=150)
@given(float_tensors())
def test_any_floats_are_written_to_the_bit_and_never_larger_than_by_any_single_encoding(floats: Tensor) -> None:
    stored = Dense(floats)
    for encoding in fitting(stored):
        parts = encoding.encode(stored)
        assert {name: TensorSpec.of(part) for name, part in parts.items()} == encoding.layout(stored), encoding.name
        decoded = encoding.decode(json.loads(json.dumps(encoding.note(stored))), parts)
        assert _same_bits(decoded.dense(), floats), encoding.name
    _check_smallest(stored)


def _check_smallest(stored: StoredTensor) -> None:
    """With the header, as formula and as file."""
    found = smallest(stored, "some.weight")
    sizes = {encoding.name: encoding.file_bytes(stored, "some.weight") for encoding in fitting(stored)}
    assert sizes[found.name] == min(sizes.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed"
        notes = {} if found.name == "dense" else {"some.weight": found.full_note(stored)}
        parts = names_in_file("some.weight", found.encode(stored))
        container.write(path, {"tensors": notes}, names_in_file("some.weight", found.layout(stored)), parts.items())
        assert path.stat().st_size == sizes[found.name]
        assert _same_bits(load_packed_weights(path)["some.weight"], stored.dense())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pruned_matrix_is_not_larger_after_clustering(dtype: torch.dtype) -> None:
    weights = torch.randn((256, 768), generator=torch.Generator().manual_seed(0)).to(dtype)
    pruned = Dense.pruned(weights, weights.abs() < 1.645)
    for bits in (3, 5, 8):
        clustered = cluster(pruned.dense(), KMeans(bits, "row"))
        assert smallest(clustered).bytes(clustered) <= smallest(pruned).bytes(pruned)
    assert smallest(clustered).name == {torch.float32: "gaps_few", torch.bfloat16: "gaps"}[dtype]


def test_floats_are_offered_to_every_format() -> None:
    few = torch.randn((64, 64), generator=torch.Generator().manual_seed(0))
    few = few.masked_fill(torch.arange(4096).view(64, 64) % 97 != 0, 0.0)
    rounded = [
        *(quantize(few, Uniform(8)), min_max.quantize(few, MinMax(8)), cluster(few, KMeans(8, "row"))),
        *(split(few, Outliers(8, share=0.001)), binarize(few, Binary("row")), ternarize(few, Ternary("row"))),
    ]
    for stored in rounded:
        assert {"sparse", "gaps"} <= {encoding.name for encoding in fitting(stored)}, type(stored)
        assert smallest(stored).bytes(stored) <= smallest(Dense(stored.dense())).bytes(stored), type(stored)


def test_a_model_that_was_rounded_before_takes_few_bytes() -> None:
    codes = quantize(torch.randn((200, 300), generator=torch.Generator().manual_seed(0)), Uniform(4, "tensor"))
    floats = Dense(codes.dense())
    assert smallest(floats).name == "few"
    assert smallest(floats).bytes(floats) <= 200 * 300 / 2 + 16 * 4
    ones = Dense(torch.ones(768))
    assert smallest(ones).bytes(ones) == 768 / 8 + 4


def test_what_is_taken_for_typical_weights() -> None:
    weights = torch.randn(64, 64)
    holes = weights.masked_fill(torch.rand(64, 64) < 0.6, 0.0)
    assert smallest(Dense(weights)).name == "dense"
    assert smallest(Dense(holes)).name == "sparse"
    assert smallest(quantize(weights, Uniform(8))).name == "codes"
    assert smallest(quantize(holes, Uniform(8))).name == "sparse_codes"
    assert smallest(quantize(torch.randn(64, 1), Uniform(8))).name == "dense"
    few = weights.masked_fill(torch.rand(64, 64) < 0.95, 0.0)
    assert smallest(Dense(few)).name == "gaps"
    assert smallest(quantize(few, Uniform(4))).name == "gaps_codes"
    two_of_four = weights.masked_fill(torch.rand(1024, 4).argsort(1).lt(2).view(64, 64), 0.0)
    assert smallest(Dense(two_of_four)).name == "of4"
    assert smallest(quantize(two_of_four, Uniform(8, "tensor"))).name == "of4_codes"
    assert smallest(split(weights, Outliers(4))).name == "both"
    assert smallest(cluster(weights, KMeans(4))).name == "book"
    assert smallest(binarize(weights, Binary())).name == "signs"
    assert smallest(binarize(few, Binary())).name == "gaps_signs"
    assert smallest(ternarize(torch.randn(256, 256), Ternary())).name == "sparse_signs"
    assert smallest(ternarize(torch.rand(64, 64) - 0.5, Ternary())).name == "trits"


@pytest.mark.parametrize(
    ("stored", "bits"),
    [
        (lambda weights: quantize(weights, Uniform(4)), 4 + 40 / 1000),
        (lambda weights: quantize(weights, Uniform(4, "group", group_size=100)), 4 + 40 / 100),
        (lambda weights: quantize(weights, Uniform(4, "group", True, group_size=100)), 4 + 32 / 100),
        (lambda weights: cluster(weights, KMeans(3)), 3 + 8 * 32 / 1e6),
        (lambda weights: binarize(weights, Binary("row")), 1 + 32 / 1000),
        (lambda weights: ternarize(weights, Ternary()), 1.5765),
        (lambda weights: split(weights, Outliers(3, share=0.01)), 3 + 40 / 1000 + 0.01 * (32 + 8.1)),
    ],
)
def test_bits_a_weight(stored: Callable[[Tensor], StoredTensor], bits: float) -> None:
    made = stored(torch.randn((1000, 1000), generator=torch.Generator().manual_seed(0)))
    assert 8 * smallest(made).bytes(made) / 1e6 == pytest.approx(bits, rel=0.002)


def test_negative_zero_survives_a_sparse_encoding() -> None:
    stored = Dense(torch.tensor([[-0.0, 0.0, 0.0, 1.0] * 16]))
    encoding = ENCODINGS["sparse"]
    assert _same_bits(encoding.decode(encoding.note(stored), encoding.encode(stored)).dense(), stored.source)


def test_unknown_encoding() -> None:
    with pytest.raises(UserError, match=r"^packed.encoding=zip is not valid: must be one of dense, "):
        encoding_named("zip")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    same_kind = one.shape == other.shape and one.dtype == other.dtype
    return same_kind and torch.equal(Dense(one).patterns(), Dense(other).patterns())
