"""The one place that sets environment variables: for libraries that take a setting in no other way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from trainlarge.errors import UserError

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""The variable that says which GPUs a process sees; CUDA reads it once, when it starts."""
SPIN_COUNT = "10000"


def show_devices(devices: tuple[str, ...]) -> None:
    """Have this process see these GPUs only; call before CUDA starts."""
    os.environ[VISIBLE_DEVICES] = ",".join(devices)


def limit_threads(cores: int) -> None:
    """Have OpenMP use so many threads, where it is not loaded yet, and in processes that this one starts."""
    os.environ["OMP_NUM_THREADS"] = str(cores)


def make_threads_yield() -> None:
    """Let OpenMP threads sleep soon instead of spinning while they wait; call before torch is imported.

    GNU's OpenMP spins for milliseconds at every barrier, and a step of a small model has hundreds of them. As soon as
    anything else wants the same cores, each waits for a thread that is not running: with two processes of two threads
    on two cores a step of (64, 1) takes 2.3 s by default, 0.2 s with 10,000 turns and 0.06 s with 1,000. Alone it takes
    14 to 17 ms by default, 16 ms with 20,000 turns and 20 ms with 1,000. An environment that says otherwise is
    respected.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def check_interpreter() -> None:
    """Refuse an interpreter that leaves out docstrings, which transformers reads.

    Raises:
        UserError: naming the variable.
    """
    if sys.flags.optimize > 1:
        raise UserError("PYTHONOPTIMIZE", sys.flags.optimize, "unset, 0 or 1: transformers reads docstrings")


def forget_enclosing_ranks() -> None:
    """Forget what a program such as torchrun, which started this one, says of ranks: Lightning would believe it."""
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def draw_without_screen() -> None:
    """Have matplotlib, which Lightning imports too, take its own backend: it ends with an error for an unknown one."""
    os.environ["MPLBACKEND"] = "agg"


def hide_library_progress_bars() -> None:
    """Keep the bars of Hugging Face's libraries, about files that take milliseconds, out of the log of every cell."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def keep_compiled_code(folder: Path) -> None:
    """Have torch.compile keep its code in ``folder``, unless ``$TORCHINDUCTOR_CACHE_DIR`` names another."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def hide_profiler_messages() -> None:
    """Have torch's profiler not print when it starts and stops; call before torch is imported."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def send_no_crash_reports() -> None:
    """Have Weights & Biases send no reports of its errors; call before ``wandb`` is imported."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set these variables while the block runs; afterwards each has its old value, or is unset again."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
