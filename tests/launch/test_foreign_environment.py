"""Variables of the environment that libraries stumble over: a command works, or says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys

from trainlarge.sweep.status import State
from trainlarge.sweep.store import Study

NO_PROGRAM = {
    "COLUMNS": "1", "CUDA_VISIBLE_DEVICES": "junk", "HOME": "/proc/none", "HYDRA_FULL_ERROR": "banana", "LC_ALL": "C",
    "LOCAL_RANK": "3", "MPLBACKEND": "banana", "OMP_NUM_THREADS": "x", "PL_TRAINER_MAX_EPOCHS": "banana",
    "PYTHONWARNINGS": "error", "RANK": "x", "TERM": "banana", "TMPDIR": "/nowhere", "WORLD_SIZE": "banana",
}  # fmt: skip


def train(overrides: list[str], **variables: str) -> tuple[int, str, str]:
    """Train a cell in a process of its own; its status, and what it printed."""
    command = [sys.executable, "-m", "trainlarge.cli", "train", *overrides]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout, done.stderr


def test_variables_that_mean_nothing_to_a_job_change_nothing(study: Study, tiny_overrides: list[str]) -> None:
    status, printed, errors = train(tiny_overrides, **NO_PROGRAM)
    assert status == 0 and "Traceback" not in printed + errors, printed + errors
    assert [folder.is_done() for folder in study.folders("train")] == [True]


def test_what_a_library_refuses_is_the_error_of_the_cell(study: Study, tiny_overrides: list[str]) -> None:
    status, printed, errors = train(tiny_overrides, TORCH_LOGS="banana")
    assert status == 1 and "Traceback" not in printed + errors, printed + errors
    [folder] = study.folders("train")
    assert folder.status().state is State.FAILED and "banana" in (folder.status().error or "")


def test_an_interpreter_without_docstrings_is_refused(study: Study, tiny_overrides: list[str]) -> None:
    status, _, errors = train(tiny_overrides, PYTHONOPTIMIZE="2")
    allowed = "must be unset, 0 or 1: transformers reads docstrings"
    assert status == 2 and errors == f"error: PYTHONOPTIMIZE=2 is not valid: {allowed}\n"
