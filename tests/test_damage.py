"""Every kind of file in a study is damaged in every way; then users' commands run on the study.

The kinds are found by walking a study that commands have made, so a new kind of file is covered by itself. After each
damage every command gives what it gave before, or names the file, or the command that repairs it, in one line. The same
commands, or those that the lines name, then make all whole again: with the numbers from before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from damaged import (
    HOW,
    NUMBERS,
    READ,
    WRITE,
    Lab,
    Said,
    Shell,
    Trial,
    damage,
    tells,
    wrongs,
)
from trainlarge.machine import precision
from trainlarge.sweep.stages import STAGES

SAMPLE = [
    ("tiny/train/ID/record.json", "changed"),
    ("tiny/trunks/ID/trunk-N/state.json", "braces"),
    (".data/ID/validation.bin", "flipped"),
    ("tiny/compress/ID/packed.safetensors", "a folder"),
]
"""Tried whenever the tests run; all kinds in all ways take minutes."""


@pytest.fixture(scope="module")
def whole() -> dict[str, dict[str, Any]]:
    """What commands give of a whole study; filled by the first test that asks."""
    return {}


def expected(whole: dict[str, dict[str, Any]], lab: Lab, folder: Path, shell: Shell) -> dict[str, dict[str, Any]]:
    if not whole:
        trial = Trial(lab, folder / "whole", shell)
        for when, verbs in (("before", READ), ("write", WRITE), ("after", NUMBERS)):
            found = trial.give(verbs, when)
            assert not (refused := [each for each in found if each.said.status]), refused
            whole[when] = {each.verb: each.result for each in found}
    return whole


def wrong_after(kind: str, how: str, lab: Lab, whole: dict[str, Any], folder: Path, shell: Shell) -> Iterator[str]:
    """What is silent, ends in a traceback, or is not repaired after one damage."""
    name = lab.files()[kind]
    trial = Trial(lab, folder, shell)
    damage(trial.study.path.parent / name, how)
    read = trial.give(READ, "before")
    yield from wrongs(read, whole["before"], name)
    written = trial.give(WRITE, "write")
    yield from wrongs(written, whole["write"], name)
    repairs = trial.redo([*read, *written])
    yield from (f"a command that repairs fails: {said.printed[-500:]}" for said in repairs if said.status)
    again = [each.verb for each in written if repairs or each.result != whole["write"][each.verb]]
    healed = trial.give({verb: WRITE[verb] for verb in again}, "again") + trial.give(NUMBERS, "after")
    for each in healed:
        if each.result != (whole["write"] | whole["after"])[each.verb]:
            yield f"{each.verb} is not repaired: {each.said.printed[-300:]} {str(each.result)[:200]}"
    if not all(cell.is_done() for stage in STAGES for cell in trial.study.folders(stage)):
        yield "cells are not done again"


@pytest.mark.parametrize(("kind", "how"), SAMPLE)
def test_damage_is_healed_or_told(
    lab: Lab, whole: dict[str, Any], shell: Shell, tmp_path: Path, kind: str, how: str
) -> None:
    before = expected(whole, lab, tmp_path, shell)
    assert not list(wrong_after(kind, how, lab, before, tmp_path / "damaged", shell))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", HOW)
def test_damage_of_every_kind_of_file_is_healed_or_told(
    lab: Lab, whole: dict[str, Any], shell: Shell, tmp_path: Path, how: str
) -> None:
    before = expected(whole, lab, tmp_path, shell)
    wrong = []
    for number, kind in enumerate(lab.files()):
        folder = tmp_path / str(number)
        wrong += [f"{kind} {how}: {what}" for what in wrong_after(kind, how, lab, before, folder, shell)]
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("verb", "kind", "how"),
    [
        ("show", "tiny/train/ID/record.json", "changed"),
        ("export", "tiny/train/ID/checkpoint/tokenizer.json", "removed"),
    ],
)
def test_the_program_itself_tells_in_a_line(lab: Lab, tmp_path: Path, verb: str, kind: str, how: str) -> None:
    lab.copy(tmp_path / "studies")
    name = lab.files()[kind]
    damage(tmp_path / "studies" / name, how)
    more = [str(tmp_path / "model")] if verb == "export" else []
    done = subprocess.run(
        [sys.executable, "-m", "trainlarge", verb, lab.parent, *more, "--study", "tiny"],
        env={**os.environ, "TRAINLARGE_STUDIES": str(tmp_path / "studies")},
        capture_output=True,
        text=True,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == (2 if verb == "export" else 0), printed
    assert "Traceback" not in printed and tells(Said(done.returncode, printed), name), printed


@pytest.mark.parametrize("how", ["changed", "flipped", "truncated", "removed"])
def test_a_damaged_measurement_of_precision_is_made_again(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No machine without bf16 measures it, so its file is not among those of the study above."""
    monkeypatch.setattr(precision, "_measured", lambda device, threads: precision.Precision("fp32", 1.01))
    folder = tmp_path / "probes" / "precision"
    assert precision.faster_precision(folder, "cpu", "a processor", 1) == "fp32"
    [path] = folder.glob("*.json")
    whole = path.read_bytes()
    damage(path, how)
    assert precision.faster_precision(folder, "cpu", "a processor", 1) == "fp32"
    assert path.read_bytes() == whole
