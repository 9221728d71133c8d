"""Disks that are full or read-only, as file systems of their own: one line each, and what was finished stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

COMMAND = [sys.executable, "-m", "trainlarge.cli"]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def disk(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for studies on a file system of two megabytes; prepared data lies elsewhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)).returncode:
        pytest.skip("no file system can be mounted here: only root may")
    prepared = tmp_path_factory.getbasetemp() / "prepared-data"
    prepared.mkdir(exist_ok=True)
    (folder / ".data").symlink_to(prepared)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def train(disk: Path, tiny_overrides: list[str]) -> Command:
    """Runs ``trainlarge train`` in a process of its own, with its studies on the disk."""

    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "train", *tiny_overrides, *overrides]
        return subprocess.run(command, env=on(disk), capture_output=True, text=True, timeout=120)

    return run


def mount(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True)
    except FileNotFoundError:
        return subprocess.CompletedProcess(arguments, 1)


def on(disk: Path) -> dict[str, str]:
    return {**os.environ, "TRAINLARGE_STUDIES": str(disk)}


def content(study: Study, cell: str) -> dict[str, bytes]:
    folder = study.folder("train", cell).path
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.long
def test_a_disk_that_fills_up_in_the_middle_loses_nothing_that_was_finished(train: Command, disk: Path) -> None:
    assert train().returncode == 0
    study = Study.named("tiny", disk)
    [first] = study.folders("train")
    finished = content(study, first.id)
    filler = disk / "filler"
    filler.write_bytes(bytes(free(disk) - 60_000))
    failed = train("seed=1")
    assert failed.returncode in (1, 2) and "No space left on device" in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stderr
    assert content(study, first.id) == finished
    filler.unlink()
    assert train("seed=1").returncode == 0
    assert content(study, first.id) == finished
    assert [folder.status().state for folder in study.folders("train")] == [State.DONE, State.DONE]


@pytest.mark.long
def test_a_read_only_study_is_one_line_and_can_be_read(train: Command, disk: Path) -> None:
    assert train().returncode == 0
    [cell] = Study.named("tiny", disk).folders("train")
    before = content(Study.named("tiny", disk), cell.id)
    mount("-o", "remount,ro", str(disk))
    refused = train("seed=1")
    assert refused.returncode == 2 and "Read-only file system" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    for verb in (["status", "tiny"], ["show", cell.id]):
        told = subprocess.run([*COMMAND, *verb], env=on(disk), capture_output=True, text=True, timeout=60)
        assert told.returncode == 0 and told.stdout, told.stderr
    assert train("workers=2").returncode == 0, "all is done: nothing has to be written, not even the new command"
    assert content(Study.named("tiny", disk), cell.id) == before


def free(disk: Path) -> int:
    state = os.statvfs(disk)
    return state.f_bavail * state.f_frsize
