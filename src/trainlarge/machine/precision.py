"""Whether training in bf16 pays on a device that claims it: a short measurement, made once and kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from trainlarge.config.group import Plain
from trainlarge.machine.probe import measured_once

SHAPES = {"cpu": (2048, 256, 1024), "cuda": (16384, 1024, 4096)}
"""Device -> tokens, width and inner width of the measured products: the feed-forward network of a model. A GPU needs
large ones: products that end sooner than Python asks for the next one take as long in either type."""
TURNS = 7
"""Pairs of turns; one more before them warms up."""
PRODUCTS = 4
"""Forward and backward passes of a turn."""
PAYS = 1.1
"""Ratio of the times from which bf16 is taken: a step also casts weights and activations, which is not measured."""


@dataclass(frozen=True)
class Precision:
    """What was measured for one device."""

    precision: Literal["fp32", "bf16"]
    """The faster one."""
    speedup: float = 1.0
    """Time of fp32 over that of bf16."""


def faster_precision(folder: Path, device: str, device_name: str, threads: int) -> str:
    """``bf16`` if its products are faster than those of fp32 by a tenth on this device, else ``fp32``.

    Both take turns, so that the load of other programs meets both; the median of the ratios decides. It is measured
    once for a device, a number of threads and a version of torch, and kept in ``folder``: from then on the answer is
    the same for every job of the study. All widths share it, though bf16 may gain nothing at small ones: seconds of
    models that were trained in different precisions are not compared.

    Args:
        folder: where it is kept.
        device: ``cpu`` or ``cuda``, one whose hardware multiplies bf16.
        device_name: name of the processor.
        threads: CPU threads.
    """
    key: dict[str, Plain] = {"device_name": device_name, "threads": threads, "torch": str(torch.__version__)}
    return measured_once(folder, key, Precision, lambda: _measured(device, threads)).precision


def _measured(device: str, threads: int) -> Precision:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        turns = [_turn(device, dtype) for _ in range(1 + TURNS) for dtype in (torch.float32, torch.bfloat16)]
    finally:
        torch.set_num_threads(before)
    ratio = median(fp32 / bf16 for fp32, bf16 in zip(turns[2::2], turns[3::2], strict=True))
    return Precision("bf16" if ratio >= PAYS else "fp32", ratio)


def _turn(device: str, dtype: torch.dtype) -> float:
    """Seconds of some forward and backward passes."""
    tokens, width, inner = SHAPES[device]
    x, up, down = (
        torch.full(size, 0.01, device=device, dtype=dtype, requires_grad=True)
        for size in ((tokens, width), (width, inner), (inner, width))
    )
    _wait_for(device)
    began = time.perf_counter()
    for _ in range(PRODUCTS):
        (x @ up @ down).backward(x.detach())  # type: ignore[no-untyped-call]
    _wait_for(device)
    return time.perf_counter() - began


def _wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
