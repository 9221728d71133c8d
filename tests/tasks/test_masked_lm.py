from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groups import data_group
from trainlarge.config.data import DataConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.blocks import spread
from trainlarge.data.prepare import PreparedData, load_prepared, prepare
from trainlarge.errors import UserError
from trainlarge.models.forward import FORWARDS
from trainlarge.tasks.evaluation import EvaluationSet
from trainlarge.tasks.masked_lm import MaskedLM


@pytest.fixture(scope="session")
def prepared(tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """A small text, prepared."""
    data = data_group({"name": "text", "files": [str(tiny_text)], "vocab_size": 300})
    return prepare(data, tmp_path_factory.mktemp("root"))


def evaluation_set(prepared: PreparedData, length: int, rows: int, rate: float) -> EvaluationSet:
    config = MaskedLMConfig(evaluation_rows=rows, evaluation_mask_rate=rate)
    return MaskedLM(config, DataConfig(sequence_length=length), FORWARDS["fast"]).evaluation_set(prepared)


def test_the_same_for_every_cell_whatever_the_global_seed(prepared):
    torch.manual_seed(1)
    one = evaluation_set(prepared, 32, 20, 0.15)
    torch.manual_seed(2)
    other = evaluation_set(load_prepared(prepared.folder), 32, 20, 0.15)
    assert one.fingerprint == other.fingerprint
    assert all(torch.equal(tensor, other.batch[name]) for name, tensor in one.batch.items())


def test_rows_are_validation_blocks(prepared):
    fixed = evaluation_set(prepared, 32, 20, 0.15)
    inputs, positions, labels = (fixed.batch[name] for name in ("input_ids", "predicted", "labels"))
    assert inputs.shape == (20, 32) and positions.shape == labels.shape == (20, 5)
    rows = inputs.scatter(1, positions, labels).numpy()
    blocks = np.asarray(prepared.validation[: len(prepared.validation) // 32 * 32]).reshape(-1, 32)
    assert {row.tobytes() for row in rows} <= {block.tobytes() for block in blocks.astype(np.int64)}


def test_fingerprint_follows_the_content(prepared):
    variants = [(32, 20, 0.15), (32, 21, 0.15), (16, 20, 0.15), (32, 20, 0.3)]
    assert len({evaluation_set(prepared, *variant).fingerprint for variant in variants}) == len(variants)


def test_fewer_rows_when_validation_is_short(prepared):
    assert len(evaluation_set(prepared, 32, 10**6, 0.15).labels) == len(prepared.validation) // 32


def test_validation_shorter_than_one_block(prepared):
    with pytest.raises(UserError, match=r"data\.sequence_length"):
        evaluation_set(prepared, len(prepared.validation) + 1, 20, 0.15)


@given(st.integers(1, 200), st.integers(1, 300))
def test_rows_are_spread_evenly(count, rows):
    chosen = spread(np.arange(count)[:, None], rows)[:, 0]
    assert len(chosen) == min(rows, count) == len(set(chosen))
    assert np.ptp(np.diff([*chosen, count])) <= 1
