"""What needs a CUDA device, and is skipped where there is none: ``make test-gpu``.

CONTRIBUTING says which packages they need; ``test_gpu_machine.py`` shows that they need no others.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch

from trainlarge.config.group import Plain
from trainlarge.config.schema import TrainConfig
from trainlarge.launch.job import RunningJob
from trainlarge.sweep.store import CellFolder, Study

Tiny = Callable[..., TrainConfig]
Run = Callable[[str, list[TrainConfig]], list[CellFolder]]


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")


@pytest.fixture
def tiny(tiny: Tiny) -> Tiny:
    """Composes a tiny train configuration for the GPU."""
    return lambda *overrides: tiny("impl.device=cuda", *overrides)


@pytest.fixture
def run_once(run_here: Run, study: Study) -> Callable[..., list[CellFolder]]:
    """Runs train cells of one job from their start: results, states and times of earlier runs are removed."""

    def run(*configs: TrainConfig) -> list[CellFolder]:
        shutil.rmtree(study.path, ignore_errors=True)
        return run_here("train", list(configs))

    return run


class Stopped(Exception):
    """Stands for a process that dies after a certain step."""


@pytest.fixture
def run_and_stop(run_here: Run, study: Study, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs train cells of one job from their start until so many steps are done, with a state after each."""

    def run(steps: int, *configs: TrainConfig) -> None:
        shutil.rmtree(study.path, ignore_errors=True)
        check, done = RunningJob.check, []

        def die(job: RunningJob) -> None:
            check(job)
            done.append(1)
            if len(done) == steps:
                raise Stopped

        with monkeypatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(RunningJob, "check", die)
            run_here("train", list(configs))

    return run


@pytest.fixture
def losses() -> Callable[[CellFolder], list[Plain]]:
    """Evaluation and training losses of a cell's curve."""
    return lambda folder: [row[name] for row in folder.metrics() for name in ("loss", "train_loss")]
