"""The loss of a training step through torch.compile, and the seconds that compiling takes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.machine.environment import keep_compiled_code
from trainlarge.training.clocks import Clock

Loss = Callable[[PreTrainedModel, dict[str, Tensor]], tuple[Tensor, Tensor]]
"""Loss of a task, ``(model, batch) -> (sum, weight)``."""


Options = dict[str, str | int | bool | Callable[..., object]]
"""Options of inductor by their names."""


def compiler_options(threads: int) -> Options:
    """What the compiler is told whatever it compiles.

    Args:
        threads: processes that may compile at once.
    """
    return {
        "compile_threads": threads,
        # They would lie in the folder of temporary files, whatever the cache is, where a process that is killed while
        # it writes one leaves every later one with errors of the compiler.
        "cpp_cache_precompile_headers": False,
    }


class Compiling:
    """What ``impl.compile`` makes of a loss.

    Compiled code is kept on disk, so that a shape costs its seconds once. Compiled and plain loss agree apart
    from rounding; dropout draws the same numbers in both.

    Args:
        kind: ``none``, ``inductor`` or ``graphs`` (inductor with CUDA graphs).
        threads: processes that may compile at once.
        cache: folder of compiled code, unless ``$TORCHINDUCTOR_CACHE_DIR`` names one.
    """

    def __init__(self, kind: str, threads: int, cache: Path) -> None:
        self.kind, self.threads, self.cache = kind, threads, cache
        self.seconds = 0.0
        """Seconds that compiling took so far in this process."""

    @property
    def is_on(self) -> bool:
        """Whether anything is compiled."""
        return self.kind != "none"

    def of(self, loss: Loss) -> Loss:
        """The compiled loss; ``loss`` itself with ``none``. Each shape is compiled at its first step."""
        if not self.is_on:
            return loss
        keep_compiled_code(self.cache)
        warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
        with_graphs = self.kind == "graphs"
        options: Options = {**compiler_options(self.threads), "fallback_random": True, "triton.cudagraphs": with_graphs}
        compiled: Loss = torch.compile(loss, dynamic=False, options=options)
        return _copied(compiled) if with_graphs else compiled

    def warm_up(self, run_steps: Callable[[], object]) -> None:
        """Count the first steps, which compile, among the seconds of compiling.

        Args:
            run_steps: runs a few steps and takes them back; not called with ``none``.
        """
        if self.is_on:
            began = time.perf_counter()
            run_steps()
            self.seconds += time.perf_counter() - began

    @contextmanager
    def pausing(self, clock: Clock) -> Iterator[None]:
        """Stop ``clock`` whenever something is compiled or a graph recorded inside the block."""
        if not self.is_on:
            yield
            return
        from torch._dynamo.callback import callback_handler

        began, was_running = 0.0, False

        def start(_: object) -> None:
            nonlocal began, was_running
            began, was_running = time.perf_counter(), clock.is_running
            clock.stop()

        def end(_: object) -> None:
            self.seconds += time.perf_counter() - began
            if was_running:
                clock.start()

        callback_handler.register_start_callback(start)
        callback_handler.register_end_callback(end)
        try:
            yield
        finally:
            callback_handler.remove_start_callback(start)
            callback_handler.remove_end_callback(end)


def _copied(compiled: Loss) -> Loss:
    def loss(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        # The results of a graph are in memory that its next run overwrites.
        total, weight = compiled(model, batch)
        return total.clone(), weight.clone()

    return loss
