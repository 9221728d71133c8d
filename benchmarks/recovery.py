"""Training inside a recipe against the plain training step: tokens per second of each, taking turns in one process.

    python benchmarks/recovery.py [--quick] [--cpu-seconds] [--shapes 64x2,128x4] [--json FILE]

All sides run the loop of a train job on the same ModernBERT (width x depth, vocabulary 4096) and the same masked rows,
``BATCH`` of 64 tokens per step. ``theirs`` is that loop without modifiers, ``ours`` with those of a recipe: what is
pruned is held at 0 or chosen on the way, and weights (and inputs) are rounded as ``quantize`` (and ``activations``)
will round them. The start of a trainer and the first step of a turn are not counted. Printed are median rates, and the
median ratio of turns that are neighbours. ``--cpu-seconds`` counts those of one thread: for a machine on which others
work, too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import PreTrainedModel

from trainlarge.compression.methods.retrain import retrain
from trainlarge.compression.registry import Shared, TrainingStart, modifier_of
from trainlarge.compression.weights import Weights
from trainlarge.config.activations import Dynamic
from trainlarge.config.data import DataConfig
from trainlarge.config.impl import ImplConfig
from trainlarge.config.method import Method
from trainlarge.config.optim import OptimConfig
from trainlarge.config.prune import Gradual, Movement, SoftMovement
from trainlarge.config.quantize import Binary, MinMax, Ternary, Uniform
from trainlarge.config.recover import Retrain
from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.prepare import PreparedData
from trainlarge.machine.device import choose, default_attention
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS
from trainlarge.models.shape import Shape
from trainlarge.tasks.masked_lm import MaskedLM
from trainlarge.training.loop import Loop
from trainlarge.training.modifier import Modifier
from trainlarge.training.module import Objective

VOCABULARY, SEQUENCE, BATCH = 4096, 64, 128
SPARSITY = 0.5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RECIPES: dict[str, tuple[Method, ...]] = {
    "zeros held": (),
    "gradual": (Gradual(0.75),),
    "movement": (Movement(0.75),),
    "soft movement": (SoftMovement(0.1),),
    "4 bit": (Uniform(4),),
    "4 bit group": (Uniform(4, "group"),),
    "4 bit mse": (Uniform(4, range="mse"),),
    "4 bit learned": (Uniform(4, range="learned"),),
    "4 bit min_max": (MinMax(4),),
    "ternary": (Ternary(),),
    "binary": (Binary(),),
    "4 bit, 8 bit inputs": (Uniform(4), Dynamic(8)),
}
Turn = Callable[[], float]
"""Take the steps of a turn; tokens per second."""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    comparison: str
    shape: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    device: str


def main() -> None:
    """Print, and write where ``--json`` says so, each recipe against the plain step."""
    options = _options()
    turns, steps = (2, 3) if options.quick else (9, 12)
    rows: list[Row] = []
    for shape in options.shapes.split(","):
        plain = turn_of(shape, None, steps, options.cpu_seconds)
        for name, ahead in RECIPES.items():
            row = duel(name, shape, turn_of(shape, ahead, steps, options.cpu_seconds), plain, turns)
            print(
                f"{row.shape:>8} {row.comparison:22} {row.ours:9.0f} {row.theirs:9.0f} tokens/s  {row.ratio:.2f}",
                flush=True,
            )
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


def duel(name: str, shape: str, ours: Turn, theirs: Turn, turns: int) -> Row:
    """So many turns of each side, one after the other, after one of each that does not count."""
    ours(), theirs()
    rates = [(ours(), theirs()) for _ in range(turns)]
    mine, plain = zip(*rates, strict=True)
    ratio = median(one / other for one, other in rates)
    return Row(name, shape, median(mine), median(plain), ratio, "tokens/s", DEVICE)


def turn_of(name: str, ahead: tuple[Method, ...] | None, steps: int, counts_cpu: bool) -> Turn:
    """Turns on a model of its own, with the modifiers of a recipe; None: without any."""
    now = time.process_time if counts_cpu else time.perf_counter
    model = new_model(name)
    task = MaskedLM(MaskedLMConfig(), DataConfig(sequence_length=SEQUENCE), FORWARDS["fast"])
    tokens = np.random.default_rng(0).integers(10, VOCABULARY, 4096 * SEQUENCE, dtype=np.uint16)
    prepared = PreparedData(Path(), "", Path(), VOCABULARY, tokens, tokens)
    loop = Loop(
        model,
        Objective(task.loss, task.weight),
        lambda step: task.batch(prepared, 0, step, BATCH),
        OptimConfig(peak_lr=1e-4),
        choose(ImplConfig(threads=1) if counts_cpu else ImplConfig()),
        seed=0,
        modifiers=() if ahead is None else modifiers_of(model, ahead),
    )

    def turn() -> float:
        times: list[float] = []

        def observe(_step: int, _loss: torch.Tensor) -> None:
            loop.implementation.synchronize()
            times.append(now())

        loop.run(0, steps + 1, lambda _step: 1.0, observe)
        return steps * BATCH * SEQUENCE / (times[-1] - times[0])

    return turn


def modifiers_of(model: PreTrainedModel, ahead: tuple[Method, ...]) -> list[Modifier]:
    """What the recipe does to a model while it trains, from the first step on."""
    weights, recover = Weights.of(model), Retrain("1000 steps", lr=1e-4, quantize_aware=1.0)
    start = TrainingStart(recover, weights, Shared(), ahead, first_step=0, steps=1000, rate=lambda _step: 1.0)
    return [*retrain(recover, weights, None).modifiers, *(modifier_of(part, start) for part in ahead)]


def new_model(name: str) -> PreTrainedModel:
    """A model with ``SPARSITY`` of its matrices at 0."""
    width, depth = map(int, name.split("x"))
    shape = Shape("modern", width, depth, max(1, width // 32), 4.0, VOCABULARY, SEQUENCE)
    model = build_model(shape, init_std=0.02, seed=0, attention=default_attention(DEVICE))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.masked_fill_(torch.rand(parameter.shape) < SPARSITY, 0.0)
    return model


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few short turns: to see that it runs")
    parser.add_argument("--cpu-seconds", action="store_true", help="seconds of one thread in the place of wall time")
    parser.add_argument("--shapes", default="", help="width x depth, such as 64x2,128x4")
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args()
    options.shapes = options.shapes or ("64x2" if options.quick else "64x2,128x4")
    return options


if __name__ == "__main__":
    main()
