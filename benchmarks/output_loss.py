"""Loss of the output layer, forward and backward: ours, some rows at a time, against separate layers.

    python benchmarks/output_loss.py [--quick] [--json FILE] [--shapes 320x64x4096,4096x256x32768] [--rounds 7]

A shape is masked positions x width x vocabulary. Both sides run in one process and take turns; printed are medians and
the median ratio of neighbouring turns, and what each keeps from the forward to the backward pass beside its inputs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from trainlarge.machine.device import device_name
from trainlarge.machine.environment import make_threads_yield
from trainlarge.machine.memory import keep_freed_memory
from trainlarge.models.loss import output_cross_entropy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    """Measure every shape, print and write."""
    options = _options()
    keep_freed_memory()
    rows = [_measure(shape, options.rounds) for shape in options.shapes]
    for row in rows:
        seconds = f"{row['ours']:.4f} s to {row['theirs']:.4f} s, ratio {row['ratio']:.2f}"
        print(f"{row['shape']}: {seconds}; kept {row['kept']:.1f} MB to {row['kept_by_layers']:.1f} MB", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def by_layers(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """As a Hugging Face model does it, at the masked positions only."""
    return functional.cross_entropy(functional.linear(hidden, weight, bias), labels)


def _measure(shape: str, rounds: int) -> dict[str, Any]:
    inputs = _inputs(*map(int, shape.split("x")))
    for loss in (output_cross_entropy, by_layers):
        _seconds(loss, inputs)
    turns = [(_seconds(output_cross_entropy, inputs), _seconds(by_layers, inputs)) for _ in range(rounds)]
    ours, theirs = (median(side) for side in zip(*turns, strict=True))
    return {
        "name": "output_loss", "shape": shape, "unit": "s", "device": device_name(DEVICE),
        "ours": ours, "theirs": theirs, "ratio": median(our / their for our, their in turns),
        "kept": _kept_megabytes(output_cross_entropy, inputs), "kept_by_layers": _kept_megabytes(by_layers, inputs),
    }  # fmt: skip


def _inputs(positions: int, width: int, vocabulary: int) -> tuple[Tensor, ...]:
    shapes = ((positions, width), (vocabulary, width), (vocabulary,))
    drawn = (torch.randn(shape, device=DEVICE).mul_(0.1).requires_grad_() for shape in shapes)
    return *drawn, torch.randint(vocabulary, (positions,), device=DEVICE)


def _seconds(loss: Loss, inputs: Any) -> float:
    _wait()
    began = time.perf_counter()
    torch.autograd.grad(loss(*inputs), inputs[:3])
    _wait()
    return time.perf_counter() - began


def _kept_megabytes(loss: Loss, inputs: Any) -> float:
    given = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = loss(*inputs)
    del result
    return sum(size for address, size in kept.items() if address not in given) / 1e6


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one small shape, under a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--shapes", type=lambda text: text.split(","), help="positions x width x vocabulary")
    parser.add_argument("--rounds", type=int, default=7, help="turns of either side")
    options = parser.parse_args()
    small, large = ["320x64x4096"], ["320x256x4096", "1230x256x32768", "4096x256x32768"]
    options.shapes = options.shapes or (small if options.quick else small + large)
    return options


if __name__ == "__main__":
    make_threads_yield()
    main()
