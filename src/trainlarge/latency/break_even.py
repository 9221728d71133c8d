"""From which sparsity on unstructured zeros pay off: a sparse product against the dense one, shape by shape."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import linear

from trainlarge.latency.packages import versions_of
from trainlarge.latency.sparse_runtimes import CsrLinear
from trainlarge.latency.turns import in_turns, passes_per_round, ratios
from trainlarge.machine.device import is_shared
from trainlarge.machine.implementation import Implementation
from trainlarge.sweep.latencies import BreakEven

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
_DENSE = "dense"


@dataclass(frozen=True, order=True)
class Product:
    """A product of a matrix with the vectors of some tokens."""

    outputs: int
    inputs: int
    tokens: int


def measured_break_even(product: Product, implementation: Implementation, rounds: int) -> BreakEven:
    """Time the dense product and sparse ones of several sparsities in turns."""
    threads = implementation.threads
    runs = runs_of(product, implementation.device)
    passes = {name: passes_per_round(run, threads) for name, run in runs.items()}
    taken = in_turns(runs, passes, rounds, threads)
    dense = taken.pop(_DENSE)
    speedups = {name: ratios(dense, sparse).median for name, sparse in taken.items()}
    return BreakEven(
        outputs=product.outputs,
        inputs=product.inputs,
        tokens=product.tokens,
        device=implementation.device,
        device_name=implementation.device_name,
        threads=threads,
        versions=versions_of(()),
        shared=is_shared(threads),
        measured=time.time(),
        rounds=rounds,
        dense_seconds=median(dense),
        speedups=speedups,
        break_even=crossing({float(name): value for name, value in speedups.items()}),
    )


def runs_of(product: Product, device: str) -> dict[str, partial[Tensor]]:
    """``dense``, and each sparsity as text -> the product; of equal sparsity the same zeros each time."""
    draws = torch.Generator().manual_seed(0)
    weight, order = (torch.rand(product.outputs, product.inputs, generator=draws) for _ in range(2))
    x = torch.rand(product.tokens, product.inputs, generator=draws).to(device)
    runs = {_DENSE: partial(linear, x, weight.to(device))}
    for sparsity in SPARSITIES:
        zeros = order < order.flatten().kthvalue(round(sparsity * order.numel())).values
        runs[f"{sparsity:g}"] = partial(CsrLinear(weight.masked_fill(zeros, 0.0).to(device), None), x)
    return runs


def crossing(speedups: Mapping[float, float]) -> float | None:
    """The sparsity from which on the speedup stays at 1 or above.

    Between two sparsities the logarithm of the speedup is a straight line.

    Returns:
        None where the largest sparsity is slower than dense; the smallest where none is.
    """
    points = [(sparsity, math.log(speedups[sparsity])) for sparsity in sorted(speedups)]
    if points[-1][1] < 0:
        return None
    for (low, before), (high, after) in reversed(list(pairwise(points))):
        if before < 0:
            return low + (high - low) * -before / (after - before)
    return points[0][0]
