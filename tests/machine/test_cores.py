from __future__ import annotations

import os

import pytest

from trainlarge.cli import main
from trainlarge.machine.cores import CORES, cores_here
from trainlarge.machine.resources import divide
from trainlarge.sweep.store import Study


def test_the_variable_limits_what_jobs_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CORES, "6")
    assert cores_here() == 6
    assert [share.cores for share in divide(2, (), 1, 1)] == [3, 3]
    monkeypatch.delenv(CORES)
    assert cores_here() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("said", ["two", "0", "-1", "1.5"])
def test_what_is_no_number_of_cores_is_one_line(
    study: Study,
    tiny_overrides: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    said: str,
) -> None:
    monkeypatch.setenv(CORES, said)
    assert main(["train", *tiny_overrides]) == 2
    [line] = capfd.readouterr().err.strip().splitlines()
    assert line == f"error: {CORES}={said} is not valid: must be a whole number of at least 1, or unset"
    assert not study.path.exists()
