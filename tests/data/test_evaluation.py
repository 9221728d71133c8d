from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.data.evaluation import evaluation_set, spread
from trainlarge.data.prepare import load_prepared
from trainlarge.errors import UserError


def test_the_same_for_every_cell_whatever_the_global_seed(prepared):
    torch.manual_seed(1)
    one = evaluation_set(prepared, 32, 20, 0.15)
    torch.manual_seed(2)
    other = evaluation_set(load_prepared(prepared.folder), 32, 20, 0.15)
    assert one.fingerprint == other.fingerprint
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("inputs", "positions", "labels"))


def test_rows_are_validation_blocks(prepared):
    fixed = evaluation_set(prepared, 32, 20, 0.15)
    assert fixed.inputs.shape == (20, 32) and fixed.positions.shape == fixed.labels.shape == (20, 5)
    rows = fixed.inputs.scatter(1, fixed.positions, fixed.labels).numpy()
    blocks = np.asarray(prepared.validation[: len(prepared.validation) // 32 * 32]).reshape(-1, 32)
    assert {row.tobytes() for row in rows} <= {block.tobytes() for block in blocks.astype(np.int64)}


def test_fingerprint_follows_the_content(prepared):
    variants = [(32, 20, 0.15), (32, 21, 0.15), (16, 20, 0.15), (32, 20, 0.3)]
    assert len({evaluation_set(prepared, *variant).fingerprint for variant in variants}) == len(variants)


def test_fewer_rows_when_validation_is_short(prepared):
    assert len(evaluation_set(prepared, 32, 10**6, 0.15).inputs) == len(prepared.validation) // 32


def test_validation_shorter_than_one_block(prepared):
    with pytest.raises(UserError, match="data.sequence_length"):
        evaluation_set(prepared, len(prepared.validation) + 1, 20, 0.15)


@given(st.integers(1, 200), st.integers(1, 300))
def test_rows_are_spread_evenly(count, rows):
    chosen = spread(np.arange(count)[:, None], rows)[:, 0]
    assert len(chosen) == min(rows, count) == len(set(chosen))
    assert np.ptp(np.diff([*chosen, count])) <= 1
