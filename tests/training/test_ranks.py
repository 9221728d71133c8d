"""Two processes give the step of one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed
from safetensors.torch import load_file

from trainlarge.config.schema import TrainConfig
from trainlarge.errors import UserError
from trainlarge.machine.resources import Resources
from trainlarge.models.forward import FORWARDS, Forward, library_logits
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.training import ranks as module
from trainlarge.training.ranks import _OtherRank, _telling_who_failed, least_of_ranks, ranks, settled_by_rank_0

Tiny = Callable[..., TrainConfig]
TwoRanks = Callable[[Sequence[str]], list[str]]
Run = Callable[[str, list[dict[str, Any]]], list[CellFolder]]


@pytest.mark.long
@pytest.mark.parametrize("impl", [[], ["impl.micro_batch_rows=3"]], ids=str)
def test_two_processes_give_the_steps_of_one(tiny: Tiny, run_here: Run, study: Study, impl: list[str]) -> None:
    common = ("impl.precision=fp32", "impl.threads=1", "optim.eps=1e-3")
    configs = [tiny(*common, f"budget={steps} steps") for steps in (20, 30)]
    one = [
        (load_file(folder.checkpoint / "model.safetensors"), folder.metrics(), folder.record_data())
        for folder in run_here("train", configs)
    ]
    shutil.rmtree(study.path)
    before = dict(os.environ)
    folders = run_here("train", [tiny(*common, "impl.devices=2", *impl, f"budget={steps} steps") for steps in (20, 30)])
    assert dict(os.environ) == before and not distributed.is_initialized()
    for folder, (weights, rows, record) in zip(folders, one, strict=True):
        assert folder.record_data()["step"] == record["step"], "the same cell, whatever the number of devices"
        assert folder.record_data()["cell"] == record["cell"]
        for name, tensor in load_file(folder.checkpoint / "model.safetensors").items():
            torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=2e-6, msg=name)
        for row, single in zip(folder.metrics(), rows, strict=True):
            assert (row["loss"], row["train_loss"]) == pytest.approx((single["loss"], single["train_loss"]), rel=1e-5)


LITTLE_MEMORY = """
import os, psutil
if os.environ.get("RANK") == "1":
    little = psutil.virtual_memory()._replace(available=1000)
    psutil.virtual_memory = lambda: little
"""


@pytest.mark.long
def test_the_rank_with_the_least_memory_sets_the_micro_batch_of_all(
    tiny: Tiny, run_here: Run, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("impl.precision=fp32", "impl.threads=1", "impl.device=cpu", "optim.eps=1e-3", "budget=20 steps")
    [folder] = run_here("train", [tiny(*common)])
    expected = load_file(folder.checkpoint / "model.safetensors")
    shutil.rmtree(study.path)
    (tmp_path / "sitecustomize.py").write_text(LITTLE_MEMORY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [folder] = run_here("train", [tiny(*common, "impl.devices=2")])
    assert folder.record_data()["environment"]["micro_batch_rows"] == 1
    for name, tensor in load_file(folder.checkpoint / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.long
def test_a_rank_that_runs_out_of_memory_asks_for_micro_batches(
    tiny: Tiny, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("made up")

    monkeypatch.setitem(FORWARDS, "library", Forward(too_large, library_logits))
    overrides = ("impl=plain", "impl.device=cpu", "impl.devices=2", "impl.threads=1", "impl.micro_batch_rows=4")
    with pytest.raises(UserError, match=r"impl\.micro_batch_rows=4 is not valid: must be 1 to 3 with several devices"):
        run_here("train", [tiny(*overrides)])


AGREE = """
import os
from trainlarge.training.ranks import joined, least_of_ranks
with joined():
    print(least_of_ranks([7, 3][int(os.environ["RANK"])]))
"""


def test_ranks_agree_on_the_least(two_ranks: TwoRanks) -> None:
    assert two_ranks(["-c", AGREE]) == ["3\n", "3\n"]


def test_one_device_starts_nothing(study: Study) -> None:
    with ranks(study.path, [], 1, Resources(1)):
        assert not distributed.is_initialized()
        assert least_of_ranks(3) == 3
        assert settled_by_rank_0(lambda run_steps: sum(run_steps(3)), lambda steps: [0.5] * steps) == 1.5


def started_rank(rank: int, code: str) -> _OtherRank:
    """A process that stands for a rank, with ``told`` as the descriptor of its error."""
    error, theirs = os.pipe()
    command = [sys.executable, "-c", f"import os, time; told = {theirs}; {code}"]
    process = subprocess.Popen(command, pass_fds=[theirs])
    os.close(theirs)
    return _OtherRank(rank, process, error)


def seen_by_rank_0(*codes: str) -> str:
    others = [started_rank(rank, code) for rank, code in enumerate(codes, 1)]
    try:
        with pytest.raises(RuntimeError) as seen, _telling_who_failed(others):
            raise RuntimeError("Connection closed by peer [127.0.0.1]:4711")
    finally:
        for other in others:
            other.kill()
    return str(seen.value)


def test_the_error_of_the_rank_that_ended_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = "time.sleep(60)"
    assert seen_by_rank_0(waits, "os.write(told, b'ValueError: no more rows'); os._exit(1)") == (
        "rank 2: ValueError: no more rows"
    )
    assert seen_by_rank_0("os.kill(os.getpid(), 9)") == "rank 1: was killed by SIGKILL (out of memory?)"
    monkeypatch.setattr(module, "_END_SECONDS", 0.2)
    assert seen_by_rank_0(waits) == "Connection closed by peer [127.0.0.1]:4711", "its own, where no other has ended"
