"""Indexes: what is stored is found again, in the bytes that were announced."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from trainlarge.compression.stored.container import TensorSpec
from trainlarge.compression.stored.indexes import INDEXES
from trainlarge.compression.stored.pattern import Pattern

masks = st.lists(st.booleans(), max_size=70).map(lambda bits: torch.tensor(bits, dtype=torch.bool))
few = st.sets(st.integers(0, 5000), max_size=6).map(
    lambda places: torch.zeros(5001, dtype=torch.bool).index_fill_(0, torch.tensor(sorted(places), dtype=torch.long), 1)
)
blocks = st.lists(st.sampled_from([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]), min_size=1).map(
    lambda found: torch.tensor(found, dtype=torch.bool).view(-1)
)
by_index = pytest.mark.parametrize("index", INDEXES, ids=lambda index: index.name or "all")


@by_index
@given(mask=masks | few | blocks)
@example(mask=torch.zeros(0, dtype=torch.bool))
@example(mask=torch.zeros(16, dtype=torch.bool))
def test_what_is_stored_is_found_again_in_the_announced_bytes(index, mask: Tensor) -> None:  # type: ignore[no-untyped-def]
    pattern = Pattern.of(mask)
    if not index.fits(pattern):
        return
    stored = index.stored(mask)
    parts = index.encode(stored, pattern)
    assert bool((stored | ~mask).all())
    assert int(stored.sum()) == index.count(pattern)
    assert {name: TensorSpec.of(part) for name, part in parts.items()} == index.layout(pattern)
    assert torch.equal(index.decode(json.loads(json.dumps(index.note(pattern))), parts, len(mask)), stored)


@pytest.mark.parametrize(("density", "best"), [(0.5, "sparse"), (0.2, "gaps"), (0.01, "gaps")])
def test_gaps_are_smaller_than_a_mask_when_few_are_left(density: float, best: str) -> None:
    mask = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) < density
    assert _bytes(mask).pop(0)[1] == best


def test_gaps_come_close_to_the_entropy() -> None:
    mask = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) < 0.1
    entropy_bytes = 0.469 * len(mask) / 8
    assert entropy_bytes < _bytes(mask)[0][0] < 1.1 * entropy_bytes


@pytest.mark.parametrize(("m", "bits"), [(4, 3), (8, 7)])
def test_blocks_take_the_bits_of_their_patterns(m: int, bits: int) -> None:
    mask = torch.rand((4000, m), generator=torch.Generator().manual_seed(0)).argsort(1).lt(m // 2).view(-1)
    assert _bytes(mask)[0] == (4000 * bits // 8, f"of{m}")


def _bytes(mask: Tensor) -> list[tuple[int, str]]:
    """Bytes of every index that stores nothing but what is not zero, smallest first."""
    pattern = Pattern.of(mask)
    fitting = [index for index in INDEXES if index.fits(pattern) and index.count(pattern) == pattern.count]
    return sorted((sum(part.bytes for part in index.layout(pattern).values()), index.name) for index in fitting)
