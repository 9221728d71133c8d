"""Encodings: every one gives back the same bits and the bytes it announced; the smallest is taken."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainlarge.compression.container import Part
from trainlarge.compression.encodings import ENCODINGS, encoding_named, fitting, smallest
from trainlarge.compression.forms import Form, Plain
from trainlarge.compression.methods.uniform import quantize
from trainlarge.config.quantize import Uniform
from trainlarge.errors import UserError

shapes = st.lists(st.integers(1, 7), min_size=2, max_size=3).map(tuple)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


@st.composite
def forms(draw: st.DrawFn) -> Form:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    weights = torch.randn(draw(shapes), generator=generator)
    weights = weights.masked_fill(torch.rand(weights.shape, generator=generator) < draw(st.floats(0, 1)), 0.0)
    weights = weights.to(draw(dtypes))
    bits = draw(st.none() | st.integers(2, 8))
    if bits is None:
        return Plain(weights)
    return quantize(weights, Uniform(bits, draw(st.sampled_from(["row", "tensor"])), draw(st.booleans())))


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


def test_negative_zero_survives_a_sparse_encoding() -> None:
    form = Plain(torch.tensor([[-0.0, 0.0, 0.0, 1.0] * 16]))
    encoding = ENCODINGS["sparse"]
    assert _same_bits(encoding.decode(encoding.note(form), encoding.encode(form)).dense(), form.values)


def test_unknown_encoding() -> None:
    with pytest.raises(UserError, match=r"^packed.encoding=zip: allowed is one of dense, "):
        encoding_named("zip")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    same_kind = one.shape == other.shape and one.dtype == other.dtype
    return same_kind and torch.equal(Plain(one).patterns(), Plain(other).patterns())
