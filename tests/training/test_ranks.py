"""Two processes give the step of one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from safetensors.torch import load_file

from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training.ranks import ranks, settled_by_rank_0

Tiny = Callable[..., dict[str, Any]]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]


@pytest.mark.long
def test_two_processes_give_the_steps_of_one(tiny: Tiny, run_here: Run, study: Study) -> None:
    common = ("impl.precision=fp32", "impl.threads=1", "optim.eps=1e-3")
    configs = [tiny(*common, f"budget={steps} steps") for steps in (20, 30)]
    one = [
        (load_file(folder.checkpoint / "model.safetensors"), folder.metrics(), folder.record())
        for folder in run_here("train", configs)
    ]
    shutil.rmtree(study.path)
    before = dict(os.environ)
    folders = run_here("train", [tiny(*common, "impl.devices=2", f"budget={steps} steps") for steps in (20, 30)])
    assert dict(os.environ) == before and not distributed.is_initialized()
    for folder, (weights, rows, record) in zip(folders, one, strict=True):
        assert folder.record()["step"] == record["step"], "the same cell, whatever the number of devices"
        assert folder.record()["cell"] == record["cell"]
        for name, tensor in load_file(folder.checkpoint / "model.safetensors").items():
            torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=2e-6, msg=name)
        for row, single in zip(folder.metrics(), rows, strict=True):
            assert (row["loss"], row["train_loss"]) == pytest.approx((single["loss"], single["train_loss"]), rel=1e-5)


def test_one_device_starts_nothing(study: Study) -> None:
    with ranks(study.path, [], 1):
        assert not distributed.is_initialized()
        assert settled_by_rank_0(lambda run_steps: sum(run_steps(3)), lambda steps: [0.5] * steps) == 1.5
