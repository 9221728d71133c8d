"""Two processes give the step of one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
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


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., list[_OtherRank]]]:
    """Processes that stand for ranks, with ``told`` as the descriptor of their error."""
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import os, sys, time; {PROGRAM}" "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with ExitStack() as stack:

        def start(*codes: str) -> list[_OtherRank]:
            return [stack.enter_context(_OtherRank.running(rank, [code], {})) for rank, code in enumerate(codes, 1)]

        yield start


PROGRAM = "told = int(sys.argv[4].partition('=')[2]); exec(sys.argv[5])"
"""The arguments of a rank: -P -m module --error-to=N, and here the code that it runs."""


def seen_by_rank_0(others: list[_OtherRank], ended: int = 1) -> str:
    """The error of a job whose last ``ended`` ranks end."""
    for other in others[len(others) - ended :]:
        # A busy machine may take longer to start it than rank 0 waits.
        other.process.wait()
    with pytest.raises(RuntimeError) as seen, _telling_who_failed(others):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:4711")
    return str(seen.value)


def test_the_error_of_the_rank_that_failed_first_is_told(
    started: Callable[..., list[_OtherRank]], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = "time.sleep(60)"
    closed = "os.write(told, b'3.5 RuntimeError: Connection closed'); os._exit(1)"
    root = "os.write(told, b'3.25 ValueError: no more rows'); os._exit(1)"
    assert seen_by_rank_0(started(waits, closed, root), ended=2) == "rank 3: ValueError: no more rows"
    assert seen_by_rank_0(started("os.kill(os.getpid(), 9)")) == "rank 1: was killed by SIGKILL (out of memory?)"
    monkeypatch.setattr(module, "_END_SECONDS", 0.2)
    assert seen_by_rank_0(started(waits), ended=0) == "Connection closed by peer [127.0.0.1]:4711", (
        "its own, where no other has ended"
    )


def test_a_rank_whose_child_lives_on_is_told_without_waiting(started: Callable[..., list[_OtherRank]]) -> None:
    others = started("child = os.fork() or time.sleep(15) or os._exit(0); os.kill(os.getpid(), 9)")
    began = time.monotonic()
    assert seen_by_rank_0(others) == "rank 1: was killed by SIGKILL (out of memory?)"
    assert time.monotonic() - began < 30


def test_where_a_rank_cannot_be_started_those_before_it_are_ended_and_nothing_stays_open(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: Any, **named: Any) -> subprocess.Popen[bytes]:
        if processes:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        processes.append(subprocess.Popen(["sleep", "60"]))
        return processes[-1]

    monkeypatch.setattr(module, "subprocess", SimpleNamespace(Popen=start))
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Cannot allocate memory"), ranks(study.path, ["cell"], 3, Resources(1)):
        pytest.fail("a rank is missing")
    assert [process.returncode for process in processes] == [-signal.SIGKILL]
    assert set(Path("/proc/self/fd").iterdir()) <= before
