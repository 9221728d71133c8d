"""The most memory that a piece of work takes beside what this process has already."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What proc(5) says to write to ``clear_refs`` to set the peak to the present size."""


def working_memory(work: Callable[[], object], device: str) -> int | None:
    """Bytes that ``work`` took at most beyond what was in use before it.

    On the CPU by the peak of the resident size, which Linux keeps; a runtime that keeps its memory from one pass to the
    next shows it at the first pass only. On a GPU by torch's own allocator.

    Returns:
        None where the system does not tell.
    """
    if device == "cuda":
        return _on_gpu(work)
    try:
        _give_freed_back()
        _CLEAR.write_text(_RESET_PEAK)
        before = _kilobytes("VmRSS")
        work()
        return max(0, _kilobytes("VmHWM") - before) * 1024
    except (OSError, LookupError):
        return None


def _on_gpu(work: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _give_freed_back() -> None:
    """What is free within the heap would be used again, and not be seen. C libraries other than GNU's keep less."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(name: str) -> int:
    """A size in ``/proc/self/status``. Raises KeyError where it is not there."""
    lines = (line.split() for line in _STATUS.read_text().splitlines() if line)
    return {words[0]: int(words[1]) for words in lines if words[0] in ("VmRSS:", "VmHWM:")}[f"{name}:"]
