from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.data.blocks import Blocks, epoch_order, subset
from trainlarge.errors import UserError

CASES = st.tuples(st.integers(1, 60), st.integers(1, 8), st.integers(0, 2**63), st.integers(1, 40))


def blocks_of(count: int, length: int, seed: int) -> Blocks:
    return Blocks(np.arange(count * length + length - 1, dtype=np.uint16), length, seed)


@given(CASES, st.integers(0, 100))
def test_a_batch_is_a_pure_function_of_seed_and_step(case, step):
    count, length, seed, rows = case
    one, other = blocks_of(count, length, seed), blocks_of(count, length, seed)
    other.batch(step + 3, rows)
    batch = one.batch(step, rows)
    assert batch.shape == (rows, length) and batch.dtype == np.int64
    np.testing.assert_array_equal(batch, other.batch(step, rows))


@given(CASES)
def test_every_block_exactly_once_an_epoch(case):
    count, length, seed, rows = case
    blocks = blocks_of(count, length, seed)
    steps = -(-3 * count // rows)
    stream = np.concatenate([blocks.rows_of(step, rows) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(CASES, st.integers(0, 20), st.integers(1, 6))
def test_any_split_of_the_batch_gives_the_same_rows(case, step, parts):
    count, length, seed, rows = case
    blocks = blocks_of(count, length, seed)
    whole = blocks.batch(step, rows * parts)
    np.testing.assert_array_equal(whole, np.concatenate([blocks.batch(step * parts + i, rows) for i in range(parts)]))
    shares = np.array_split(blocks.rows_of(step, rows * parts), parts)
    np.testing.assert_array_equal(whole, np.concatenate([blocks.blocks[share] for share in shares]))


@given(CASES)
def test_blocks_are_consecutive_tokens(case):
    count, length, seed, rows = case
    batch = blocks_of(count, length, seed).batch(0, rows)
    assert (np.diff(batch, axis=1) == 1).all() and (batch[:, 0] % length == 0).all()


def test_orders_differ_by_seed_and_epoch_and_are_uniform():
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100
    first = np.bincount([epoch_order(seed, 0, 4)[0] for seed in range(4000)], minlength=4)
    assert (abs(first - 1000) < 150).all()


def test_an_order_is_pinned():
    assert epoch_order(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]


@given(st.integers(200, 3000), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_subsets_are_nested_and_as_large_as_their_fraction(count, one, other):
    small, large = sorted((one, other))
    inner, outer = subset(count, small), subset(count, large)
    assert set(inner) <= set(outer) and len(inner) == round(small * count)
    assert (np.diff(inner) > 0).all() and inner.max() < count


def test_a_subset_is_pinned_and_lies_everywhere():
    assert subset(20, 0.25).tolist() == [0, 2, 9, 14, 16]
    thirds = np.bincount(subset(30_000, 0.05) // 10_000, minlength=3)
    assert (abs(thirds - 500) < 100).all()


@given(st.integers(20, 200), st.integers(0, 5), st.integers(0, 30))
def test_a_fraction_trains_on_its_blocks_alone_and_once_an_epoch(count, seed, rows):
    tokens, rows = np.arange(3 * count, dtype=np.uint16), rows + 1
    part = Blocks(tokens, 3, seed, fraction=0.3)
    kept = round(0.3 * count)
    stream = np.concatenate([part.batch(step, rows) for step in range(-(-2 * kept // rows))])
    for epoch in range(2):
        seen = stream[epoch * kept : (epoch + 1) * kept, 0] // 3
        assert sorted(seen) == subset(count, 0.3).tolist()
    assert len(part) == kept and set(part.spread(5)[:, 0] // 3) <= set(subset(count, 0.3))


def test_the_whole_is_what_it_was_without_a_fraction():
    whole, one = blocks_of(50, 4, 7), Blocks(blocks_of(50, 4, 7).blocks.reshape(-1), 4, 7, fraction=1.0)
    np.testing.assert_array_equal(whole.batch(3, 20), one.batch(3, 20))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, 0.001])
def test_a_fraction_that_leaves_nothing(fraction):
    with pytest.raises(UserError, match=r"^data\.fraction="):
        Blocks(np.arange(100), 4, 0, fraction)


@pytest.mark.parametrize("length", [0, -1, 11])
def test_sequence_length_that_does_not_fit(length):
    with pytest.raises(UserError, match=r"data\.sequence_length=.*1 to 10"):
        Blocks(np.arange(10), length, 0)
