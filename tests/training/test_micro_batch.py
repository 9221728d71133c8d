from __future__ import annotations

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.data.masking import MaskedBatch
from trainlarge.models.build import build_model
from trainlarge.models.forward import masked_loss
from trainlarge.models.memory import free_memory
from trainlarge.models.shape import Shape
from trainlarge.training.micro_batch import USED_SHARE, fitting_rows, saved_row_bytes

SHAPE = Shape("modern", 64, 2, 2, 2.0, vocab_size=500, positions=32)


@given(st.integers(1, 4096), st.floats(1e3, 1e9), st.floats(0, 1e9), st.floats(1e6, 1e12))
def test_parts_fit_are_nearly_equal_and_as_large_as_they_may(rows: int, row: float, model: float, free: float) -> None:
    size, room = fitting_rows(rows, row, model, free), USED_SHARE * free - model
    assert 1 <= size <= rows
    assert size == 1 or size * row <= room * (1 + 1e-9) + row
    parts = -(-rows // size)
    assert parts == 1 or -(-rows // (parts - 1)) * row > room * (1 - 1e-9)


def test_the_whole_batch_where_it_fits() -> None:
    assert fitting_rows(64, 1e6, 1e6, 1e9) == 64
    assert fitting_rows(64, 1e6, 0, 64e6) == 32
    assert fitting_rows(64, 1e9, 1e9, 1e6) == 1


def masked(rows: int, length: int = 32) -> MaskedBatch:
    ids = torch.randint(4, 500, (rows, length))
    return MaskedBatch(ids, torch.arange(5).expand(rows, 5).contiguous(), ids[:, :5])


def test_what_a_row_keeps_is_proportional_to_depth_and_less_in_bf16() -> None:
    deep = Shape("modern", 64, 6, 2, 2.0, vocab_size=500, positions=32)
    sizes = [saved_row_bytes(build(shape), masked_loss, masked(4), "fp32") for shape in (SHAPE, deep)]
    activations = 32 * 64 * 4
    assert 5 * activations < (sizes[1] - sizes[0]) / 4 < 40 * activations, "a few tensors of [length, width] a layer"
    half = saved_row_bytes(build(deep), masked_loss, masked(4), "bf16")
    assert half < sizes[1]


def build(shape: Shape) -> torch.nn.Module:
    return build_model(shape, init_std=0.1, seed=0, attention="eager")


def test_measuring_changes_neither_the_model_nor_the_random_state() -> None:
    model = build(Shape("modern", 64, 2, 2, 2.0, vocab_size=500, positions=32, dropout=0.1))
    before, state = {name: p.clone() for name, p in model.named_parameters()}, torch.get_rng_state()
    saved_row_bytes(model, masked_loss, batch := masked(4), "fp32")
    state_after_batch = torch.get_rng_state()
    saved_row_bytes(model, masked_loss, batch, "fp32")
    assert torch.equal(torch.get_rng_state(), state_after_batch) and not torch.equal(state, state_after_batch)
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_free_memory_is_that_of_this_machine() -> None:
    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_a_control_group_counts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainlarge.models.memory import _left_in_group

    assert _left_in_group(tmp_path) == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100\n")
    assert _left_in_group(tmp_path) == []
    (tmp_path / "memory.max").write_text("300\n")
    assert _left_in_group(tmp_path) == [200]
