"""Formats: every one has every operation, and gives the bits that the operation promises."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainlarge.compression.methods import min_max
from trainlarge.compression.methods.kmeans import cluster
from trainlarge.compression.methods.outliers import split
from trainlarge.compression.methods.repaired import repair
from trainlarge.compression.methods.signs import binarize, ternarize
from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.stored.affine import Affine
from trainlarge.compression.stored.codebook import Codebook
from trainlarge.compression.stored.dense import Dense
from trainlarge.compression.stored.dense_plus_sparse import DensePlusSparse
from trainlarge.compression.stored.encodings import fitting, smallest
from trainlarge.compression.stored.formats import FORMATS
from trainlarge.compression.stored.offset import Offset
from trainlarge.compression.stored.repaired import Repaired
from trainlarge.compression.stored.signs import Signs
from trainlarge.compression.stored.stored_tensor import Elementwise, StoredTensor
from trainlarge.config.quantize import Binary, KMeans, LowRankRepair, MinMax, Outliers, Ternary, Uniform

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
ROWS, COLUMNS = 12, 20

MADE: list[tuple[type[StoredTensor], Callable[[Tensor], StoredTensor]]] = [
    (Dense, Dense),
    (Dense, lambda weights: Dense.pruned(weights, weights < 0)),
    (Affine, lambda weights: quantize(weights, Uniform(4))),
    (Affine, lambda weights: quantize(weights, Uniform(3, "tensor", symmetric=True))),
    (Affine, lambda weights: quantize(weights, Uniform(4, "group", group_size=8))),
    (Offset, lambda weights: min_max.quantize(weights, MinMax(4))),
    (Offset, lambda weights: min_max.quantize(weights, MinMax(4, "group", 8))),
    (Codebook, lambda weights: cluster(weights, KMeans(3))),
    (Codebook, lambda weights: cluster(weights, KMeans(2, "row"))),
    (Signs, lambda weights: binarize(weights, Binary("row"))),
    (Signs, lambda weights: ternarize(weights, Ternary("group", 8))),
    (DensePlusSparse, lambda weights: split(weights, Outliers(4, share=0.05))),
    (Repaired, lambda weights: repair(weights, LowRankRepair(3, rank=2, rounds=2))),
]
IDS = [f"{index} {kind.__name__}" for index, (kind, _) in enumerate(MADE)]


@pytest.fixture(params=MADE, ids=IDS)
def stored(request: pytest.FixtureRequest) -> StoredTensor:
    """Pruned normal weights in each format."""
    kind, make = request.param
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn((ROWS, COLUMNS), generator=generator)
    made = make(weights.masked_fill(torch.rand((ROWS, COLUMNS), generator=generator) < 0.3, 0.0))
    assert type(made) is kind
    return made


def test_every_format_is_listed_and_made_here() -> None:
    assert {kind for kind, _ in MADE} == set(FORMATS)
    assert _concrete(Elementwise) | {DensePlusSparse} == set(FORMATS)


def test_a_format_knows_the_float_tensor(stored: StoredTensor) -> None:
    dense = stored.dense()
    assert (stored.shape, stored.dtype) == (dense.shape, dense.dtype) == ((ROWS, COLUMNS), torch.float32)
    assert torch.equal(stored.dense(), dense)
    assert int(torch.count_nonzero(dense)) <= stored.nonzero < ROWS * COLUMNS


def test_every_encoding_of_a_format_gives_the_same_tensor_back(stored: StoredTensor) -> None:
    for encoding in fitting(stored):
        parts = encoding.encode(stored)
        again = encoding.decode(json.loads(json.dumps(encoding.note(stored))), parts)
        assert type(again) in (type(stored), Dense)
        assert torch.equal(again.dense(), stored.dense())
        assert encoding.bytes(stored) == sum(part.nbytes for part in parts.values())
        if type(again) is type(stored) is not Dense:
            assert (again.bits, again.nonzero) == (stored.bits, stored.nonzero)


def test_the_ideal_size_is_below_that_of_the_file(stored: StoredTensor) -> None:
    ideal = stored.bits * int(torch.count_nonzero(stored.dense()))
    assert 0 < ideal <= 8 * smallest(stored).bytes(stored)


def test_zeros_are_added_and_nothing_else_changes(stored: StoredTensor) -> None:
    dense = stored.dense()
    is_zero = (dense == 0) | (dense.abs() < dense.abs().median())
    pruned = stored.with_zeros(is_zero)
    assert pruned is not None and type(pruned) is type(stored)
    assert torch.equal(pruned.dense(), dense.masked_fill(is_zero, 0.0))
    assert pruned.nonzero == int((~is_zero).sum())
    assert pruned.bits == stored.bits or isinstance(stored, DensePlusSparse | Repaired), (
        "an average over the weights that are left"
    )
    assert _file_bytes(pruned) <= _file_bytes(stored)


@pytest.mark.parametrize("dimension", [0, 1])
def test_slices_have_the_same_values(stored: StoredTensor, dimension: int) -> None:
    kept = torch.tensor([0, 2, 3, 9])
    expected = stored.dense().index_select(dimension, kept)
    sliced = stored.slice(dimension, kept, 30)
    if dimension == 1 and _has_groups(stored):
        assert sliced is None, "groups would differ in size"
        return
    assert sliced is not None and type(sliced) is type(stored)
    assert torch.equal(sliced.dense(), expected)
    counts_itself = isinstance(stored, Dense | Offset | Repaired)
    assert sliced.nonzero == 30 or (counts_itself and sliced.nonzero == int(torch.count_nonzero(expected)))
    assert torch.equal(
        smallest(sliced).decode(smallest(sliced).note(sliced), smallest(sliced).encode(sliced)).dense(), expected
    )


def test_a_book_without_a_free_value_cannot_hold_a_zero() -> None:
    stored = cluster(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), KMeans(2))
    assert stored.with_zeros(torch.zeros((1, 4), dtype=torch.bool)) is not None
    both_signs = Codebook(codes=stored.codes.repeat(1, 2), bits=2, book=stored.book, nonzero=8)
    assert both_signs.with_zeros(torch.tensor([[True] + 7 * [False]])) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pruned_tensor_keeps_the_bits_of_the_others(dtype: torch.dtype) -> None:
    source = torch.tensor([[-0.0, 1.5, -2.0], [-0.0, -3.0, 0.0]], dtype=dtype)
    stored = Dense.pruned(source, torch.tensor([[False, True, False], [True, True, False]]))
    expected = torch.tensor([[-0.0, 0.0, -2.0], [0.0, 0.0, 0.0]], dtype=dtype)
    assert torch.equal(Dense(stored.dense()).patterns(), Dense(expected).patterns())
    assert (stored.shape, stored.dtype, stored.nonzero) == (source.shape, dtype, 1)
    assert stored.mask().tolist() == [True, False, True, False, False, False]


def test_a_pruned_tensor_takes_one_bit_per_weight_beside_its_source() -> None:
    source = torch.randn(16, 10)
    stored = Dense.pruned(source, source < 0)
    assert stored.source is source
    assert stored.kept is not None and stored.kept.nbytes == 20


def _concrete(kind: type[object]) -> set[type[object]]:
    """The classes below one that are not subclassed further."""
    below = [_concrete(child) for child in kind.__subclasses__()]
    return set().union(*below) if below else {kind}


def _file_bytes(stored: StoredTensor) -> int:
    return smallest(stored).file_bytes(stored, "")


def _has_groups(stored: StoredTensor) -> bool:
    return getattr(stored, "group_size", None) is not None
