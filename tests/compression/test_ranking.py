"""The smallest of each row or block: exact counts by score and position, nested, torch's pruning as oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import prune

from trainlarge.compression.methods.magnitude import magnitude
from trainlarge.compression.ranking import smallest, zero_in_rows
from trainlarge.compression.registry import Shared
from trainlarge.config.prune import Magnitude
from trainlarge.errors import UserError

# Few distinct values, so that ties are everywhere.
scores = st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=8, max_size=8), min_size=1, max_size=5).map(
    torch.tensor
)


@given(scores, st.integers(0, 8))
def test_exactly_the_smallest_by_score_and_position(found: Tensor, count: int) -> None:
    expected = torch.zeros_like(found, dtype=torch.bool)
    for row, values in enumerate(found.tolist()):
        expected[row, sorted(range(8), key=lambda i: (values[i], i))[:count]] = True
    assert torch.equal(smallest(found, count), expected)


@given(scores, st.sampled_from([0.25, 0.5, 0.75]), st.sampled_from([4, 8]))
def test_blocks_are_rows_of_their_own(found: Tensor, sparsity: float, m: int) -> None:
    in_blocks = zero_in_rows("w", found + 1, found, sparsity, m)
    alone = zero_in_rows("w", (found + 1).view(-1, m), found.view(-1, m), sparsity, None)
    assert torch.equal(in_blocks.dense().view(-1, m), alone.dense())
    assert bool(((in_blocks.dense().view(-1, m) == 0).sum(1) == sparsity * m).all())


@given(st.floats(0, 0.99), st.integers(0, 20))
def test_rows_agree_with_torch(sparsity: float, seed: int) -> None:
    weights = torch.randn((5, 17), generator=torch.Generator().manual_seed(seed))
    found = magnitude(Magnitude(sparsity, "row"), {"w": weights}, Shared())["w"].dense()
    for row, values in zip(found, weights, strict=True):
        assert torch.equal(row, prune.L1Unstructured(amount=sparsity).prune(values))


@given(st.integers(0, 7), st.integers(0, 7))
def test_four_of_eight_is_nested_in_two_of_eight(one: int, other: int) -> None:
    weights = torch.randn((6, 24), generator=torch.Generator().manual_seed(0))
    less, more = (
        magnitude(Magnitude(count / 8, "block", 8), {"w": weights}, Shared())["w"].dense()
        for count in sorted([one, other])
    )
    assert bool(((less != 0) | (more == 0)).all())


def test_a_block_that_does_not_fit_the_rows() -> None:
    with pytest.raises(
        UserError, match=r"^prune.m=4 is not valid: must be a divisor of the columns of every matrix; w has 6$"
    ):
        magnitude(Magnitude(0.5, "block", 4), {"w": torch.randn(3, 6)}, Shared())


def test_a_convolution_has_rows_of_its_filters() -> None:
    weights = torch.randn((4, 3, 5), generator=torch.Generator().manual_seed(0))
    found = magnitude(Magnitude(0.4, "row"), {"w": weights}, Shared())["w"].dense()
    assert found.shape == weights.shape
    assert (found == 0).sum((1, 2)).tolist() == [6] * 4
