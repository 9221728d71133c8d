"""A thousand recipes of one checkpoint: one command, with the time that is left, in memory that does not grow."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from trainlarge.config.schema import TrainConfig
from trainlarge.launch.progress import LINE_SECONDS
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

GROWTH = 64e6
"""Bytes by which the memory of the job may move once it has done a quarter of its recipes: noise of the allocator."""


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_recipes_in_one_command(
    run_here: Callable[..., list[CellFolder]], tiny: Callable[..., TrainConfig], study: Study, tmp_path: Path
) -> None:
    [parent] = run_here("train", [tiny()])
    sparsities = ",".join(f"{number / 125:g}" for number in range(125))
    sweep = [f"prune.sparsity={sparsities}", "quantize.bits=32,8,7,6,5,4,3,2"]
    command = [sys.executable, "-m", "trainlarge.cli", "compress", "-m", f"checkpoint={parent.id}", "study=tiny"]
    log = tmp_path / "out.txt"
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "tracking=none", "impl.device=cpu", *sweep], stdout=out, stderr=out, cwd=tmp_path
        )
        try:
            seen = _watched(process, study)
        finally:
            process.terminate()
            process.wait()
    seconds, told = time.monotonic() - began, log.read_text()
    print(f"{seconds / 1000:.3f} s a recipe, {seconds:.0f} s in all, peak {max(seen['bytes']) / 1e6:.0f} MB")
    assert process.returncode == 0, told
    assert sum(folder.is_done() for folder in study.folders("compress")) == 1000
    losses = [folder.record_data()["loss"] for folder in study.folders("compress")]
    assert len(set(losses)) > 500
    assert min(seen["left"]) < max(seen["left"]), "the time that is left is in the status all the while, and shrinks"
    if seconds > 4 * LINE_SECONDS:
        assert " left" in told
    later = seen["bytes"][len(seen["bytes"]) // 4 :]
    assert max(later) - later[0] < GROWTH


def _watched(process: subprocess.Popen[bytes], study: Study) -> dict[str, list[float]]:
    """Bytes of the largest process of a command and the seconds that its job says are left, while it runs."""
    seen: dict[str, list[float]] = {"bytes": [], "left": []}
    while process.poll() is None:
        time.sleep(2.0)
        seen["left"] += _seconds_left(study)
        if seen["left"]:
            seen["bytes"].append(max(_resident(psutil.Process(process.pid).children(recursive=True)), default=0))
    return seen


def _seconds_left(study: Study) -> list[float]:
    running = (folder.status() for folder in study.folders("compress"))
    return [status.progress.seconds_left for status in running if status.state is State.RUNNING and status.progress][:1]


def _resident(processes: list[psutil.Process]) -> list[float]:
    found = []
    for process in processes:
        try:
            found.append(float(process.memory_info().rss))
        except psutil.NoSuchProcess:
            continue
    return found
