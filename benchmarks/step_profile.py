"""Where the time of a training step goes, by torch's profiler.

Parts of the forward pass begin where their first module is called; an operation of the backward pass belongs to the
part whose operation it derives. On the CPU times are those of operations, on a GPU those of kernels. What is left of
the step is Python, the profiler's own work, and waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

DATA, EMBEDDING, ATTENTION, FFN, HEAD, OPTIMIZER = "data", "embedding", "attention", "FFN", "head", "optimizer"
PARTS = (DATA, EMBEDDING, ATTENTION, FFN, HEAD, OPTIMIZER)
PYTHON = "Python"
WARM_UP_STEPS = 3
BACKWARD = "autograd::engine::evaluate_function"


class Marks:
    """The part that is at work, as a range in the profile."""

    def __init__(self) -> None:
        self._open: Any = None

    def begin(self, part: str) -> None:
        """End the part before and begin this one."""
        self.end()
        self._open = record_function(part)
        self._open.__enter__()

    def end(self) -> None:
        """Nothing of a part is at work."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None

    def watch(self, model: Any) -> list[Any]:
        """Begin each part of a ModernBERT where its first module is called; handles of the hooks."""
        encoder = model.model
        firsts = [(encoder.embeddings, EMBEDDING), (encoder.final_norm, HEAD)]
        for layer in encoder.layers:
            firsts += [(layer.attn_norm, ATTENTION), (layer.mlp_norm, FFN)]
        return [module.register_forward_pre_hook(self._beginning(part)) for module, part in firsts]

    def _beginning(self, part: str) -> Callable[..., None]:
        return lambda *_: self.begin(part)


def step_shares(model: Any, step: Callable[[Marks], None], device: str, steps: int) -> dict[str, float]:
    """Share of a step that each of ``PARTS`` takes, and ``PYTHON``, which is the rest.

    Args:
        model: a ModernBERT.
        step: takes one training step on it and marks ``DATA``, ``OPTIMIZER`` and the end of the loss.
        device: ``cpu`` or ``cuda``.
        steps: how many are profiled.
    """
    marks = Marks()
    for _ in range(WARM_UP_STEPS):
        step(marks)
    handles = marks.watch(model)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities) as profiler:
        _wait_for(device)
        began = time.perf_counter()
        for _ in range(steps):
            step(marks)
        _wait_for(device)
        microseconds = 1e6 * (time.perf_counter() - began)
    for handle in handles:
        handle.remove()
    spent = _times([event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CPU], device)
    shares = {part: spent[part] / microseconds for part in PARTS}
    return shares | {PYTHON: max(0.0, 1 - sum(shares.values()))}


def told(shape: str, shares: dict[str, float]) -> str:
    """The shares as a line."""
    return f"{shape:7} where a step's time goes: " + ", ".join(f"{part} {share:.0%}" for part, share in shares.items())


def _times(events: list[Any], device: str) -> dict[str, float]:
    """Microseconds of operations by part."""
    spent, ranges = dict.fromkeys(PARTS, 0.0), [event for event in events if event.name in PARTS]
    part_of_operation: dict[int, str] = {}
    for part in ranges:
        for event in _below(part):
            spent[part.name] += _own_time(event, device)
            if event.sequence_nr >= 0:
                part_of_operation[event.sequence_nr] = part.name
    for event in events:
        if event.name.startswith(BACKWARD):
            # What only adds to a gradient derives no operation; it belongs to what the optimizer reads.
            part = part_of_operation.get(event.sequence_nr, OPTIMIZER)
            spent[part] += sum(_own_time(below, device) for below in [event, *_below(event)])
    return spent


def _below(event: Any) -> list[Any]:
    return [one for child in event.cpu_children for one in [child, *_below(child)]]


def _own_time(event: Any, device: str) -> float:
    return float(event.self_device_time_total if device == "cuda" else event.self_cpu_time_total)


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
