"""What shells complete: verbs, flags, studies, cells, keys and values."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainlarge.cli import main
from trainlarge.commands.completion import SCRIPTS, complete
from trainlarge.commands.suggestions import suggestions
from trainlarge.sweep.store import Study

CELL, OTHER = "0123456789ab", "0f23456789ab"


@pytest.fixture
def cells(study: Study) -> Study:
    """A study with a train cell and a compress cell."""
    for stage, cell in (("train", CELL), ("compress", OTHER)):
        (study.path / stage / cell).mkdir(parents=True)
    return study


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trainlarge ", ["train", "ls", "completion"]),
        ("trainlarge st", ["status"]),
        ("trainlarge --ver", ["--version"]),
        ("trainlarge --debug sta", ["status"]),
        ("trainlarge status ", ["tiny"]),
        ("trainlarge status --w", ["--watch"]),
        ("trainlarge show 01", [CELL]),
        ("trainlarge show --study tiny 0", [CELL, OTHER]),
        ("trainlarge export --study t", ["tiny"]),
        ("trainlarge run quick", ["quickstart"]),
        ("trainlarge plan compress quantize=kme", ["quantize=kmeans"]),
        ("trainlarge run quickstart arch.wid", ["arch.width="]),
        ("trainlarge train arch.wid", ["arch.width="]),
        ("trainlarge train arc", ["arch=", "arch."]),
        ("trainlarge train arch=mod", ["arch=modern"]),
        ("trainlarge train arch=modern,ro", ["arch=modern,roberta"]),
        ("trainlarge train impl.device=c", ["impl.device=cpu", "impl.device=cuda"]),
        ("trainlarge train redo=t", ["redo=true"]),
        ("trainlarge train -m +sweeps=quickstart/t", ["+sweeps=quickstart/train"]),
        ("trainlarge train --ret", ["--retries"]),
        ("trainlarge train study=ti", ["study=tiny"]),
        ("trainlarge compress study=tiny checkpoint=0", [f"checkpoint={CELL}"]),
        ("trainlarge compress quantize=gptq quantize.d", ["quantize.damping="]),
        ("trainlarge compress quantize=uniform quantize.d", []),
        ("trainlarge train 'budget=1k ste", []),
        ("trainlarge completion f", ["fish"]),
        ("trainlarge nothing ", []),
    ],
)
def test_words_that_fit_are_suggested(line: str, words: list[str], cells: Study) -> None:
    found = suggestions(line)
    assert set(words) <= set(found)
    assert words == found or line.endswith(" ")


def test_names_of_sweep_files_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sweeps" / "chain").mkdir(parents=True)
    for name in ("1_train.yaml", "2_train_sst2.yaml"):
        (tmp_path / "sweeps" / "chain" / name).write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    assert suggestions("trainlarge run ch") == ["chain"]
    assert suggestions("trainlarge run chain ss") == ["sst2."]
    assert suggestions("trainlarge run chain sst2.optim.l") == ["sst2.optim.lr=", "sst2.optim.lr_rule="]
    assert suggestions("trainlarge train +sweeps=chain/2") == ["+sweeps=chain/2_train_sst2"]


def test_bash_replaces_only_what_is_behind_its_last_break(cells: Study) -> None:
    line = "trainlarge train impl.device=cu"
    assert complete(line, breaks=" \t\n\"'><=;|&(:") == ["cuda"]
    assert complete(line) == ["impl.device=cuda"]


def test_a_line_that_cannot_be_completed_prints_nothing(study: Study, capfd: pytest.CaptureFixture[str]) -> None:
    for line in ("trainlarge show --study nowhere ", "trainlarge train arch=nothing arch.", "trainlarge 'x", "", "x"):
        assert main(["completion", "bash", "--line", line]) == 0
        assert not capfd.readouterr().err


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_of_a_shell_is_one_that_it_reads(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell])
    assert subprocess.run([program, "-n", script], capture_output=True, check=False).stderr == b""


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds ``trainlarge``."""
    program = tmp_path / "bin" / "trainlarge"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m trainlarge "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_a_real_fish_completes(cells: Study, on_path: dict[str, str]) -> None:
    script = "trainlarge completion fish | source; for line in $argv; complete -C $line; end"
    lines = ["trainlarge stat", "trainlarge train impl.device=cu", "trainlarge show 012"]
    done = subprocess.run(["fish", "-c", script, *lines], capture_output=True, text=True, env=on_path, check=True)
    assert (done.stdout.splitlines(), done.stderr) == (["status", "impl.device=cuda", CELL], "")


def test_a_real_bash_completes(cells: Study, on_path: dict[str, str]) -> None:
    """Bash's own function, called as readline does."""
    script = """
        eval "$(trainlarge completion bash)"
        try() {
          COMP_LINE="$1"; COMP_POINT=${#1}; COMPREPLY=()
          _trainlarge trainlarge
          echo "${COMPREPLY[*]}"
        }
        try "trainlarge stat"
        try "trainlarge train impl.device=cu"
        try "trainlarge show 012"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=on_path, check=True)
    assert done.stdout.splitlines() == ["status", "cuda", CELL]
    assert done.stderr == ""
