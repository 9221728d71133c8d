"""No process of ours imports what lies in the working directory."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from trainlarge.launch.safe_path import SAFE, SHELL_LINES, leave_working_directory, safe_children, safe_environment
from trainlarge.machine.resources import Resources
from trainlarge.sweep.store import Study
from trainlarge.training import ranks

NAMES = ("random", "queue", "tokenizers", "torch", "json", "tempfile", "numpy", "logging")
PROGRAM = "import sys\nfrom trainlarge.__main__ import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
"""As pip writes the program ``trainlarge``: the folder of this script, and not the working directory, is searched."""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of modules that say that they were run."""
    folder = tmp_path / "foreign"
    (folder / "lib").mkdir(parents=True)
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\nraise SystemExit(9)"
        )
    (folder / "lib" / "ours.py").write_text("VALUE = 7\n")
    return folder


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    monkeypatch.delenv(SAFE, raising=False)
    return lambda **more: {**os.environ, **more}


def test_empty_entries_go_and_relative_ones_stay() -> None:
    assert safe_environment({"PYTHONPATH": ":lib::/x:", "A": "b"}) == {"PYTHONPATH": "lib:/x", SAFE: "1", "A": "b"}
    assert safe_environment({})["PYTHONPATH"] == ""


@pytest.mark.parametrize("start", [["-c", "import ours, random; print(ours.VALUE)"], ["-m", "ours"]])
def test_a_child_finds_what_the_variable_names_and_nothing_beside_it(
    start: list[str], foreign: Path, environment: Callable[..., dict[str, str]]
) -> None:
    child = safe_environment(environment(PYTHONPATH=":lib:"))
    subprocess.run([sys.executable, *start], cwd=foreign, env=child, check=True, timeout=60)
    assert not (foreign.parent / "ran").exists()


@pytest.mark.parametrize("given", ["", ":", "::lib::/x::", "lib"])
def test_the_shell_lines_do_the_same(given: str, environment: Callable[..., dict[str, str]]) -> None:
    script = "\n".join(["set -eu", *SHELL_LINES, f'echo "${SAFE} $PYTHONPATH"'])
    printed = subprocess.run(
        ["bash", "-c", script], env=environment(PYTHONPATH=given), capture_output=True, text=True, check=True
    )
    assert printed.stdout == f"1 {safe_environment({'PYTHONPATH': given})['PYTHONPATH']}\n"


def test_processes_of_multiprocessing_and_their_children_are_safe(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SAFE, raising=False)
    monkeypatch.setenv("PYTHONPATH", ":lib")
    monkeypatch.chdir(foreign)
    path = list(sys.path)
    monkeypatch.setattr(sys, "path", ["", str(foreign), *path])
    with safe_children():
        process = multiprocessing.get_context("spawn").Process(target=_child_and_grandchild)
        process.start()
    process.join(60)
    assert process.exitcode == 0 and not (foreign.parent / "ran").exists()
    assert sys.path == ["", str(foreign), *path] and SAFE not in os.environ and os.environ["PYTHONPATH"] == ":lib"


def _child_and_grandchild() -> None:
    import queue  # noqa: F401

    subprocess.run([sys.executable, "-c", "import random, ours"], check=True)


def test_the_program_leaves_the_working_directory_unless_the_user_names_it(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(foreign)
    for variable, is_left in {"": False, ":/x": False, "lib": False, ".": True, f"/x:{foreign}": True}.items():
        monkeypatch.setenv("PYTHONPATH", variable)
        monkeypatch.setattr(sys, "path", [str(foreign), "", "/x"])
        leave_working_directory()
        assert sys.path == ([str(foreign), "/x"] if is_left else ["/x"]), variable


def test_other_ranks_are_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], env: dict[str, str], pass_fds: list[int]) -> MagicMock:
        started.append((command, env))
        return MagicMock()

    monkeypatch.setattr(ranks.subprocess, "Popen", start)
    monkeypatch.setattr(ranks, "joined", nullcontext)
    with ranks.ranks(Path("study"), ["cell"], 2, Resources(3, jobs_per_device=2)):
        pass
    [(command, environment)] = started
    assert command[:3] == [sys.executable, "-P", "-m"] and environment[SAFE] == "1"
    assert command[4].startswith("--error-to=") and command[5:] == ["--cores=3", "--jobs-per-device=2", "study", "cell"]


RANKS = ["train", "impl.devices=2"]
TIMED_FIRST = ["train", "-m", "arch.width=16,32", "budget=0.5 s"]
"""Several shapes with budgets in seconds: a process that times them is the first one of the command."""


@pytest.mark.parametrize(
    ("verb", "cells"), [(RANKS, 1), pytest.param(TIMED_FIRST, 2, marks=pytest.mark.long)], ids=["ranks", "timed first"]
)
def test_jobs_run_in_a_folder_of_foreign_modules(
    foreign: Path,
    study: Study,
    tiny_overrides: list[str],
    environment: Callable[..., dict[str, str]],
    verb: list[str],
    cells: int,
) -> None:
    program = foreign.parent / "bin" / "program.py"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    given = [each for each in tiny_overrides if each.partition("=")[0] not in {part.partition("=")[0] for part in verb}]
    command = [sys.executable, str(program), *verb, *given]
    done = subprocess.run(command, cwd=foreign, env=environment(), capture_output=True, text=True, timeout=240)
    logs = "".join(folder.log.read_text() for folder in study.folders("train") if folder.log.exists())
    assert done.returncode == 0, done.stderr + logs
    assert [folder.is_done() for folder in study.folders("train")] == [True] * cells
    assert not (foreign.parent / "ran").exists()
