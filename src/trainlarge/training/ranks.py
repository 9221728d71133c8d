"""One job on several devices: a process for each, which DDP (Li et al. 2020, arXiv 2006.15704) keeps in step.

The job's own process is rank 0: it alone claims, saves and writes. The others run
``trainlarge.training.rank_worker``, train the same trunk and branches from the same cells, and only compute their share
of each batch. What one rank may decide alone (how many steps to time) is broadcast to the others; what each finds for
itself (the rows that its memory has room for) is agreed on; all else follows from the configuration, the files that a
segment starts from and the averaged loss, which are the same everywhere.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as distributed

from trainlarge.errors import UserError
from trainlarge.launch.error_line import ended_in_words
from trainlarge.launch.safe_path import SAFE_PYTHON, safe_environment
from trainlarge.machine.environment import variables
from trainlarge.machine.resources import Resources
from trainlarge.machine.step_time import Window

PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others before it gives up."""
_END_SECONDS = 2.0
"""How long a rank whose connection is closed may take to end."""
_ERROR_BYTES = 4096
T = TypeVar("T")
RunSteps = Callable[[int], list[Window]]


@contextmanager
def ranks(study: Path, cell_ids: list[str], count: int, resources: Resources) -> Iterator[None]:
    """Other processes for ranks 1 to ``count - 1`` while the block runs as rank 0; nothing with one device.

    Args:
        study: folder of the study.
        cell_ids: train cells of the job, in its order.
        resources: cores and GPUs of the job.
    """
    if count == 1:
        yield
        return
    port = str(_free_port())
    options = [f"--cores={resources.cores}", f"--jobs-per-device={resources.jobs_per_device}"]
    arguments = [*options, str(study), *cell_ids]
    with ExitStack() as stack:
        # One that cannot be started leaves none of those before it.
        others = [
            stack.enter_context(_OtherRank.running(rank, arguments, _rank(rank, count, port)))
            for rank in range(1, count)
        ]
        # Lightning sets the number of threads where it is not set, and leaves it there.
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, resources.cores // count)))}
        with variables(_rank(0, count, port) | threads), joined(), _telling_who_failed(others):
            yield


class RankFailedError(RuntimeError):
    """Another rank of the job ended; what rank 0 itself sees is a closed connection."""


@dataclass(frozen=True)
class _OtherRank:
    """The process of a rank other than 0."""

    rank: int
    process: subprocess.Popen[bytes]
    error: int
    """Descriptor from which its error can be read: when it was raised, by the clock of the machine, and its line."""

    @classmethod
    @contextmanager
    def running(cls, rank: int, arguments: list[str], environment: dict[str, str]) -> Iterator[_OtherRank]:
        """Start it, and end it with the block."""
        error, theirs = os.pipe()
        # A child of it may hold the other end when it is gone.
        os.set_blocking(error, False)
        worker = ["-m", "trainlarge.training.rank_worker", f"--error-to={theirs}", *arguments]
        variables_of_rank = safe_environment(os.environ) | environment
        with os.fdopen(error, "rb", buffering=0):
            try:
                process = subprocess.Popen(
                    [sys.executable, SAFE_PYTHON, *worker], env=variables_of_rank, pass_fds=[theirs]
                )
            finally:
                os.close(theirs)
            try:
                yield cls(rank, process, error)
            finally:
                process.kill()
                process.wait()

    def failure(self) -> tuple[float, str] | None:
        """When and why it failed; None where it has not. One that was killed said nothing, and comes first."""
        said = b""
        with suppress(BlockingIOError):
            said = os.read(self.error, _ERROR_BYTES)
        when, _, line = said.decode(errors="replace").partition(" ")
        if line:
            return float(when), f"rank {self.rank}: {line}"
        status = self.process.poll()
        return (0.0, f"rank {self.rank}: {ended_in_words(status)}") if status else None


@contextmanager
def _telling_who_failed(others: list[_OtherRank]) -> Iterator[None]:
    """Turn the error that rank 0 sees in this block into that of the rank which failed first, where one did.

    All others see a closed connection, and fail with that.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        deadline = time.monotonic() + _END_SECONDS
        while not (failures := [failure for other in others if (failure := other.failure())]):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        raise RankFailedError(min(failures)[1]) from error


@contextmanager
def joined() -> Iterator[None]:
    """In touch with the other ranks while the block runs; the environment says which one this is.

    A process that ends without leaving them may abort: a thread of the group still waits for the others.
    """
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if distributed.is_nccl_available() else "gloo", timeout=PATIENCE
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_count() -> tuple[int, int]:
    """This process among those of the job: (0, 1) where it is the only one."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def settled_by_rank_0(settle: Callable[[RunSteps], float], run_steps: RunSteps) -> float:
    """What ``settle`` returns on rank 0, for which all ranks run the steps that it asks for.

    Args:
        settle: given a function that runs so many steps, returns the steady-state step time; called on rank 0 alone.
        run_steps: runs so many steps on this rank.
    """
    rank, count = rank_and_count()
    if count == 1:
        return settle(run_steps)
    if rank:
        while isinstance(answer := _broadcast(None), int):
            run_steps(answer)
        return float(answer or 0.0)

    def lead(steps: int) -> list[Window]:
        _broadcast(steps)
        return run_steps(steps)

    seconds = settle(lead)
    _broadcast(seconds)
    return seconds


def least_of_ranks(value: int) -> int:
    """The smallest of the values that the ranks bring; with one rank, its own."""
    if rank_and_count()[1] == 1:
        return value
    least = torch.tensor(value)
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return int(least)


def as_rank_0_says(answer: bool) -> bool:
    """Rank 0's answer, on every rank."""
    decided = torch.tensor(answer)
    distributed.broadcast(decided, src=0)
    return bool(decided)


def of_rank_0(decide: Callable[[], T]) -> T:
    """What ``decide`` returns on rank 0, on every rank; it is called there alone."""
    rank, count = rank_and_count()
    if count == 1:
        return decide()
    box = [None if rank else decide()]
    distributed.broadcast_object_list(box, src=0)
    return cast(T, box[0])


def _broadcast(value: float | None) -> float | None:
    """The value of rank 0, on every rank."""
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def _rank(rank: int, count: int, port: str) -> dict[str, str]:
    """Environment from which torch and Lightning know a rank."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "NODE_RANK": 0}
    return {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
