"""Which code a result comes from: asked of git, in checkouts made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import trainlarge
from trainlarge.config.share import share_folder
from trainlarge.sweep.store import Study

ASK = "import json; from trainlarge.machine.provenance import origin; print(json.dumps(origin(None, 0.0).to_json()))"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    return subprocess.run(
        ["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, text: str) -> str:
    """Commit everything, with a file that holds ``text``; the number of the commit."""
    (folder / "notes.txt").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


def copy_package(folder: Path) -> dict[str, str]:
    """Copy the package into ``folder``; the environment of processes that run that copy."""
    package = Path(trainlarge.__file__).parent
    shutil.copytree(package, folder / "trainlarge", ignore=shutil.ignore_patterns("__pycache__"))
    return {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def asked(environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    origin = json.loads(done.stdout)
    return {key: origin[key] for key in ("commit", "dirty")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty git repository."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    return folder


def test_a_package_installed_inside_a_project_is_not_of_its_commit(project: Path) -> None:
    (project / ".gitignore").write_text(".venv\n")
    commit(project, "of somebody else")
    assert asked(copy_package(project / ".venv" / "site-packages")) == {"commit": None, "dirty": None}


def test_a_checkout_has_its_commit_and_says_whether_it_was_changed(project: Path) -> None:
    environment = copy_package(project / "src")
    number = commit(project, "first")
    assert asked(environment) == {"commit": number, "dirty": False}
    (project / "notes.txt").write_text("changed")
    assert asked(environment) == {"commit": number, "dirty": True}


@pytest.mark.long
def test_cells_are_of_the_commit_that_was_loaded_when_their_command_began(
    project: Path, study: Study, tiny_overrides: list[str]
) -> None:
    environment = copy_package(project / "src")
    shutil.copytree(share_folder() / "conf", project / "conf")
    number = commit(project, "first")
    command = [sys.executable, "-m", "trainlarge.cli", "train", "-m", *tiny_overrides, "seed=0,1"]
    process = subprocess.Popen([*command, "clock=real", "budget=2 s"], env=environment)
    while not any((folder.status().progress.step or 0) > 10 for folder in study.folders("train")):
        assert process.poll() is None
        time.sleep(0.02)
    assert not any(folder.is_done() for folder in study.folders("train"))
    commit(project, "second")
    assert process.wait(timeout=200) == 0
    records = [folder.record_data()["provenance"] for folder in study.folders("train")]
    assert len(records) == 2 and {record["commit"] for record in records} == {number}
    assert not any(record["dirty"] for record in records)
