"""Batches of like lengths: every row once per epoch, a function of (seed, step), and little padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groups import data_group
from trainlarge.data.blocks import RowOrder
from trainlarge.data.buckets import BucketedOrder
from trainlarge.data.labelled import prepare_labelled
from trainlarge.data.labelled_tables import Columns

SETS = Path(__file__).parents[3] / "shared" / "data"


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5), st.sampled_from([1.0, 0.4]), st.randoms())
def test_every_row_once_per_epoch(count: int, rows: int, seed: int, fraction: float, draw: object) -> None:
    lengths = np.random.default_rng(count).integers(3, 60, 2 * count)
    among = np.arange(0, 2 * count, 2) if seed % 2 else None
    used = lengths if among is not None else lengths[:count]
    if round(fraction * count) < 1:
        return
    plain = RowOrder(count, seed, fraction, among)
    steps = 3 * len(plain) // rows + 1
    orders = [BucketedOrder(used, count, seed, fraction, among) for _ in range(2)]
    forward = [orders[0].rows_of(step, rows) for step in range(steps)]
    backward = [orders[1].rows_of(step, rows) for step in reversed(range(steps))][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(forward, backward, strict=True))
    stream, usual = np.concatenate(forward), np.concatenate([plain.rows_of(step, rows) for step in range(steps)])
    for epoch in range(len(stream) // len(plain)):
        part = slice(epoch * len(plain), (epoch + 1) * len(plain))
        assert sorted(stream[part]) == sorted(usual[part])
        assert len(set(stream[part])) == len(plain)


def test_neighbouring_batches_have_about_the_mean_length_together() -> None:
    lengths = np.random.default_rng(0).integers(3, 100, 64 * 64)
    order = BucketedOrder(lengths, len(lengths), seed=3)
    longest = np.array([lengths[order.rows_of(step, 16)].max() for step in range(256)])
    assert np.ptp(longest) > 90, "batches differ"
    means = longest.reshape(-1, 8).mean(1)
    assert means.min() > 0.8 * longest.mean() and means.max() < 1.2 * longest.mean()


@pytest.mark.parametrize(
    ("train", "validation", "columns", "text"),
    [
        ("sst2/test.jsonl.gz", "sst2/validation.jsonl.gz", Columns("label"), "sentence"),
        (
            "mnli/validation_matched.jsonl.gz",
            "mnli/validation_mismatched.jsonl.gz",
            Columns("label", "hypothesis"),
            "premise",
        ),
    ],
)
@pytest.mark.parametrize("rows", [16, 32])
def test_padding_is_at_most_8_percent(
    train: str, validation: str, columns: Columns, text: str, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not (SETS / train).is_file():
        pytest.skip(f"{SETS / train} is not there")
    files = {"files": [str(SETS / train)], "validation_files": [str(SETS / validation)]}
    data = data_group({"name": "text", **files, "text_column": text, "vocab_size": 2000})
    root = tmp_path_factory.getbasetemp() / "prepared"
    lengths = prepare_labelled(data, columns, root).lengths("train", 128)
    order = BucketedOrder(lengths, len(lengths), seed=0)
    batches = lengths[np.array([order.rows_of(step, rows) for step in range(3 * len(lengths) // rows)])]
    padding = 1 - batches.sum() / (rows * batches.max(1).sum())
    assert padding < 0.08
    assert 1 - lengths.mean() / 128 > 0.5, "most of a row that is filled up to 128 is padding"
