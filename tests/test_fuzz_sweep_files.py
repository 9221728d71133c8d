"""Whatever a sweep file holds, a command does it or refuses it in one line with the key or the file, in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

import nasty

FILES = {1: 60, **dict.fromkeys((2, 3, 4, 5), 160)}
"""Seed -> sweep files."""


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3, 4, 5))])
def test_a_strange_file_is_done_or_refused_in_one_line(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINLARGE_STUDIES", str(tmp_path / "studies"))
    wrong = {}
    for content, keys in nasty.sweep_files(seed, FILES[seed]):
        nasty.write_sweep(tmp_path, content)
        given = nasty.Given(("plan", "+sweeps=fuzz/train"), (*keys, "fuzz/train"))
        if text := nasty.complaint(given, capfd):
            wrong[content] = text
    assert not wrong, "\n".join(f"{content[:200]!r}\n    {text[:600]}" for content, text in wrong.items())
