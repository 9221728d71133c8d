"""Encodings: every one gives back the same bits and the bytes it announced; the smallest is taken."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainlarge.compression.methods.kmeans import cluster
from trainlarge.compression.methods.outliers import split
from trainlarge.compression.methods.signs import binarize, ternarize
from trainlarge.compression.methods.uniform import quantize
from trainlarge.compression.stored.container import Part
from trainlarge.compression.stored.encodings import ENCODINGS, encoding_named, fitting, smallest
from trainlarge.compression.stored.forms import Form, Plain
from trainlarge.config.quantize import Binary, KMeans, Outliers, Ternary, Uniform
from trainlarge.errors import UserError

shapes = st.lists(st.integers(1, 7), min_size=2, max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


granularities = st.sampled_from(["row", "tensor", "group"])


@st.composite
def forms(draw: st.DrawFn) -> Form:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    weights = torch.randn(draw(shapes), generator=generator)
    weights = weights.masked_fill(torch.rand(weights.shape, generator=generator) < draw(st.floats(0, 1)), 0.0)
    return draw(st.sampled_from(MAKERS))(draw, weights.to(draw(dtypes)))


def _affine(draw: st.DrawFn, weights: Tensor) -> Form:
    method = Uniform(draw(st.integers(2, 8)), draw(granularities), draw(st.booleans()), draw(st.integers(1, 8)))
    return quantize(weights, method)


def _outliers(draw: st.DrawFn, weights: Tensor) -> Form:
    return split(weights, Outliers(draw(st.integers(2, 8)), draw(granularities), share=draw(st.floats(0, 0.9))))


def _codebook(draw: st.DrawFn, weights: Tensor) -> Form:
    return cluster(weights, KMeans(draw(st.integers(1, 8)), draw(st.sampled_from(["row", "tensor"]))))


def _ternary(draw: st.DrawFn, weights: Tensor) -> Form:
    return ternarize(weights, Ternary(draw(granularities), draw(st.integers(1, 8))))


def _binary(draw: st.DrawFn, weights: Tensor) -> Form:
    return binarize(weights, Binary(draw(granularities), draw(st.integers(1, 8))))


def _pruned(draw: st.DrawFn, weights: Tensor) -> Form:
    bools = st.lists(st.booleans(), min_size=weights.numel(), max_size=weights.numel())
    return Plain.pruned(weights, torch.tensor(draw(bools)))


MAKERS = [lambda draw, weights: Plain(weights), _pruned, _affine, _outliers, _codebook, _ternary, _binary]


@given(forms())
def test_every_encoding_round_trips_and_announces_its_bytes(form: Form) -> None:
    for encoding in fitting(form):
        parts = encoding.encode(form)
        assert {name: Part(part.dtype, tuple(part.shape)) for name, part in parts.items()} == encoding.layout(form)
        assert encoding.bytes(form) == sum(part.numel() * part.element_size() for part in parts.values())
        decoded = encoding.decode(json.loads(json.dumps(encoding.note(form))), parts)
        assert _same_bits(decoded.dense(), form.dense())


@given(forms())
def test_the_smallest_is_taken(form: Form) -> None:
    assert smallest(form).bytes(form) == min(encoding.bytes(form) for encoding in fitting(form))


def test_what_is_taken_for_typical_weights() -> None:
    weights = torch.randn(64, 64)
    holes = weights.masked_fill(torch.rand(64, 64) < 0.6, 0.0)
    assert smallest(Plain(weights)).name == "dense"
    assert smallest(Plain(holes)).name == "sparse"
    assert smallest(quantize(weights, Uniform(8))).name == "codes"
    assert smallest(quantize(holes, Uniform(8))).name == "sparse_codes"
    assert smallest(quantize(torch.randn(64, 1), Uniform(8))).name == "dense"
    few = weights.masked_fill(torch.rand(64, 64) < 0.95, 0.0)
    assert smallest(Plain(few)).name == "gaps"
    assert smallest(quantize(few, Uniform(4))).name == "gaps_codes"
    two_of_four = weights.masked_fill(torch.rand(1024, 4).argsort(1).lt(2).view(64, 64), 0.0)
    assert smallest(Plain(two_of_four)).name == "of4"
    assert smallest(quantize(two_of_four, Uniform(8, "tensor"))).name == "of4_codes"
    assert smallest(split(weights, Outliers(4))).name == "both"
    assert smallest(cluster(weights, KMeans(4))).name == "book"
    assert smallest(binarize(weights, Binary())).name == "signs"
    assert smallest(binarize(few, Binary())).name == "gaps_signs"
    assert smallest(ternarize(weights, Ternary())).name == "sparse_signs"
    assert smallest(ternarize(torch.rand(64, 64) - 0.5, Ternary())).name == "trits"


@pytest.mark.parametrize(
    ("form", "bits"),
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
def test_bits_a_weight(form: Callable[[Tensor], Form], bits: float) -> None:
    made = form(torch.randn((1000, 1000), generator=torch.Generator().manual_seed(0)))
    assert 8 * smallest(made).bytes(made) / 1e6 == pytest.approx(bits, rel=0.002)


def test_negative_zero_survives_a_sparse_encoding() -> None:
    form = Plain(torch.tensor([[-0.0, 0.0, 0.0, 1.0] * 16]))
    encoding = ENCODINGS["sparse"]
    assert _same_bits(encoding.decode(encoding.note(form), encoding.encode(form)).dense(), form.source)


def test_unknown_encoding() -> None:
    with pytest.raises(UserError, match=r"^packed.encoding=zip: allowed is one of dense, "):
        encoding_named("zip")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    same_kind = one.shape == other.shape and one.dtype == other.dtype
    return same_kind and torch.equal(Plain(one).patterns(), Plain(other).patterns())
