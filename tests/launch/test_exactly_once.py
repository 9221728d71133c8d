"""Workers and whole commands that die by ``kill -9`` at random moments: every cell is done, and done once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import made
from trainlarge.config.schema import TrainConfig
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.status import State
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]
CLOCKS = {"train_seconds", "model_seconds", "wall_seconds"}

WORKER = """
import json, os, random, sys, time
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.records import TrainRecord
from trainlarge.sweep.store import Study

study, journal = Study.named("tiny"), os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
draw, name, record = random.Random(int(sys.argv[2])), sys.argv[2], json.loads(sys.argv[3])
folders = list(study.folders("train"))
while open_cells := [folder.id for folder in folders if not folder.is_done()]:
    draw.shuffle(open_cells)
    for first in range(0, len(open_cells), 3):
        job = RunningJob.claim(study, "train", open_cells[first : first + 3])
        with job.running():
            for cell in job.cells:
                time.sleep(draw.uniform(0, 0.03))
                job.finish(cell.id, TrainRecord.from_json({**record, "cell": cell.id, "by": name}))
                os.write(journal, f"{cell.id} {name}\\n".encode())
"""


RECORD = json.dumps(made.any_record("").to_json())


def start_worker(journal: Path, number: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(journal), str(number), RECORD])


@pytest.mark.parametrize("kills", [12, pytest.param(120, marks=[pytest.mark.long, pytest.mark.timeout(1500)])])
def test_workers_killed_at_random_finish_every_cell_once(tiny: Tiny, study: Study, tmp_path: Path, kills: int) -> None:
    base, draw, journal = tiny(), random.Random(0), tmp_path / "journal"
    cells = make_cells("train", [replace(base, seed=seed) for seed in range(12 * kills)])
    for cell in cells:
        study.folder("train", cell.id).freeze(cell)
    workers = [start_worker(journal, number) for number in range(3)]
    for number in range(kills):
        # At random moments, but by the progress of the work: it must last, however fast the machine.
        wait_for_lines(journal, number * len(cells) // (kills + 2))
        time.sleep(draw.uniform(0, 0.1))
        victim = draw.randrange(3)
        assert workers[victim].poll() is None
        workers[victim].kill()
        workers[victim].wait()
        workers[victim] = start_worker(journal, 3 + number)
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    folders = [study.folder("train", cell.id) for cell in cells]
    assert all(folder.status().state is State.DONE for folder in folders)
    finished = [line.split() for line in journal.read_text().splitlines()]
    assert max(Counter(cell for cell, _ in finished).values()) == 1
    assert all(study.folder("train", cell).record_data()["by"] == name for cell, name in finished)
    assert len(finished) >= len(cells) - kills, "only a killed worker may miss its line"


def wait_for_lines(journal: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while count and (not journal.exists() or journal.read_bytes().count(b"\n") < count):
        assert time.monotonic() < deadline
        time.sleep(0.01)


COMMAND = [sys.executable, "-m", "trainlarge.cli", "train", "-m"]
FIXED = ["impl.precision=fp32", "impl.threads=1", "impl.save_seconds=0.3", "workers=2"]


@pytest.mark.long
@pytest.mark.timeout(
    3600
)  # Fifty times as long as a command takes to begin, which is seconds here, half a minute there.
def test_commands_killed_at_fifty_random_moments_end_with_the_same_bits(
    study: Study, tiny_overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds, draw = range(8), random.Random(1)
    command = [*COMMAND, *tiny_overrides, *FIXED, "budget=[1500 steps,3000 steps]", f"seed={','.join(map(str, seeds))}"]
    finished: dict[str, dict[str, bytes]] = {}
    startup = seconds_to_first_progress(command, tmp_path / "log", study)
    for _ in range(50):
        process = start(command, tmp_path / "log")
        time.sleep(startup * draw.uniform(0.7, 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for folder in filter(CellFolder.is_done, study.folders("train")):
            assert finished.setdefault(folder.id, result_files(folder)) == result_files(folder)
    assert start(command, tmp_path / "log").wait(timeout=600) == 0, (tmp_path / "log").read_text()[-2000:]
    for cell, files in finished.items():
        assert result_files(study.folder("train", cell)) == files, "what was done is never touched again"
    disturbed = {folder.id: result(folder) for folder in study.folders("train")}
    assert len(disturbed) == 2 * len(seeds)

    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path / "quiet"))
    assert start([*command[:-1], f"seed={seeds[0]},{seeds[-1]}"], tmp_path / "log").wait(timeout=300) == 0
    quiet = list(Study.named("tiny").folders("train"))
    assert len(quiet) == 4 and all(disturbed[folder.id] == result(folder) for folder in quiet)


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """The command in a session of its own, so that all its processes can be killed together."""
    with log.open("wb") as output:
        return subprocess.Popen(command, start_new_session=True, stdout=output, stderr=output)


def seconds_to_first_progress(command: list[str], log: Path, study: Study) -> float:
    """How long the command takes until a cell runs; it is killed then."""
    started = time.monotonic()
    process = start(command, log)
    while not any(folder.status().progress for folder in study.folders("train")):
        assert process.poll() is None and time.monotonic() < started + 120, log.read_text()[-2000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - started


def result_files(folder: CellFolder) -> dict[str, bytes]:
    """What a cell's result consists of; its lease and log may still be touched by who looks at it."""
    names = ("record.json", "metrics.jsonl", "checkpoint/model.safetensors")
    return {name: (folder.path / name).read_bytes() for name in names}


def result(folder: CellFolder) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Weights by name, and the curve without its clocks."""
    weights = load_file(folder.checkpoint / "model.safetensors")
    rows = [{key: value for key, value in row.items() if key not in CLOCKS} for row in folder.metrics()]
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}, rows
