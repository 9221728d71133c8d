"""Every kind of file in a study is damaged in several ways; then users' commands run on the study.

The kinds are found by walking a study that commands have made, so a new kind of file is covered by itself. After each
damage every command gives what it gave before, or names the file, or the command that repairs it, in one line. The same
commands, or those that the lines name, then make all whole again: with the numbers from before.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest

from damaged import FOREIGN, Lab, Said, Shell, check_damages, damage, tells
from trainlarge.machine import precision

SAMPLE = [
    ("tiny/train/ID/record.json", "changed"),
    ("tiny/train/ID/checkpoint/tokenizer.json", "truncated"),
    ("tiny/compress/ID/packed.safetensors", "a folder"),
]
"""Tried whenever the tests run; all kinds take minutes."""
MORE = [
    ("tiny/train/ID/metrics.jsonl", "removed"),
    ("tiny/trunks/ID/trunk-N/state.json", "changed"),
    (".data/ID/validation.bin", "truncated"),
]


@pytest.mark.parametrize("damages", [SAMPLE, pytest.param(MORE, marks=pytest.mark.long)], ids=["sample", "more"])
def test_damage_is_healed_or_told(damages: list[tuple[str, str]], lab: Lab, shell: Shell, tmp_path: Path) -> None:
    check_damages(damages, lab, tmp_path, shell)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_kind_of_file_with_another_bit_is_healed_or_told(lab: Lab, shell: Shell, tmp_path: Path) -> None:
    check_damages([(kind, "flipped") for kind in lab.files()], lab, tmp_path, shell)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_kind_of_file_with_foreign_content_is_healed_or_told(lab: Lab, shell: Shell, tmp_path: Path) -> None:
    check_damages(zip(lab.files(), cycle(FOREIGN), strict=False), lab, tmp_path, shell)


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
