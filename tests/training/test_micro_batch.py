from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainlarge.config.data import DataConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.machine import memory
from trainlarge.machine.memory import free_memory
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS
from trainlarge.models.shape import Shape
from trainlarge.tasks.masked_lm import MaskedLM
from trainlarge.training.micro_batch import USED_SHARE, fitting_rows, saved_row_bytes

LOSS = MaskedLM(MaskedLMConfig(), DataConfig(), FORWARDS["fast"]).loss
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


def masked(rows: int, length: int = 32) -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 500, (rows, length))
    return {"input_ids": ids, "predicted": torch.arange(5).expand(rows, 5).contiguous(), "labels": ids[:, :5]}


def test_what_a_row_keeps_is_proportional_to_depth_and_less_in_bf16() -> None:
    deep = Shape("modern", 64, 6, 2, 2.0, vocab_size=500, positions=32)
    sizes = [saved_row_bytes(build(shape), LOSS, masked(4), "fp32") for shape in (SHAPE, deep)]
    activations = 32 * 64 * 4
    assert 5 * activations < (sizes[1] - sizes[0]) / 4 < 40 * activations, "a few tensors of [length, width] a layer"
    half = saved_row_bytes(build(deep), LOSS, masked(4), "bf16")
    assert half < sizes[1]


def build(shape: Shape) -> torch.nn.Module:
    return build_model(shape, init_std=0.1, seed=0, attention="eager")


def test_measuring_changes_neither_the_model_nor_the_random_state() -> None:
    model = build(Shape("modern", 64, 2, 2, 2.0, vocab_size=500, positions=32, dropout=0.1))
    before, state = {name: p.clone() for name, p in model.named_parameters()}, torch.get_rng_state()
    saved_row_bytes(model, LOSS, batch := masked(4), "fp32")
    state_after_batch = torch.get_rng_state()
    saved_row_bytes(model, LOSS, batch, "fp32")
    assert torch.equal(torch.get_rng_state(), state_after_batch) and not torch.equal(state, state_after_batch)
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_free_memory_is_that_of_this_machine() -> None:
    assert 0 < free_memory() <= psutil.virtual_memory().total


NAMES = {2: ("", "max", "current"), 1: ("memory", "limit_in_bytes", "usage_in_bytes")}


@pytest.fixture(params=NAMES)
def groups(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes limit and use of a control group of either version; this process is in ``/slurm/job_7``."""
    root, limit_name, used_name = NAMES[request.param]
    line = {2: "0::/slurm/job_7", 1: "9:memory:/slurm/job_7"}[request.param]
    (tmp_path / "self").write_text(f"12:cpu,cpuacct:/elsewhere\n{line}\n1:name=systemd:/user.slice\n")
    monkeypatch.setattr(memory._left_in_groups, "__defaults__", (tmp_path / "fs", tmp_path / "self"))

    def write(path: str, limit: str, used: int) -> None:
        folder = tmp_path / "fs" / root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"memory.{limit_name}").write_text(f"{limit}\n")
        (folder / f"memory.{used_name}").write_text(f"{used}\n")

    return write


def test_the_control_group_of_the_process_and_those_around_it_count(groups: Callable[..., None]) -> None:
    total = free_memory()
    groups("slurm/job_7", str(4 << 20), 1 << 20)
    assert free_memory() == 3 << 20 < total
    groups("slurm/job_7", "max", 1 << 20)
    assert free_memory() > 4 << 20, "no limit"
    groups("slurm", str(2 << 20), 1 << 20)
    assert free_memory() == 1 << 20, "what holds for all jobs together"
    groups("elsewhere", "100", 0)
    assert free_memory() == 1 << 20, "a group of other processes"
    groups("slurm/job_7", "100", 300)
    assert free_memory() == 0


def test_in_a_container_the_root_is_its_own_group(groups: Callable[..., None]) -> None:
    groups("", str(4 << 20), 1 << 20)
    assert free_memory() == 3 << 20


def test_the_memory_of_a_slurm_job_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    total, used = free_memory(), psutil.Process().memory_info().rss
    megabytes = used // 2**20 + 64
    monkeypatch.setenv("SLURM_MEM_PER_NODE", str(megabytes))
    assert free_memory() == pytest.approx(64 << 20, abs=16 << 20)
    for no_limit in ("0", ""):
        monkeypatch.setenv("SLURM_MEM_PER_NODE", no_limit)
        assert free_memory() == pytest.approx(total, rel=0.5)
