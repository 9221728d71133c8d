"""Seconds of evaluating several weight variants of one checkpoint in one batched forward, against one after the other.

    python benchmarks/batched_variants.py [--quick] [--json FILE] [--shapes 64x1,64x2,128x2] [--variants 4,8,16]
                                          [--rounds 5] [--rows 512]

*Ours* is what the compress stage does: the weights of each variant put in place, and its own evaluation. *Theirs* is
``torch.func``: weights stacked, then ``functional_call`` under ``vmap`` over the same forward pass; stacking counts, as
putting in place does. Rows of 64 tokens, vocabulary 2,048, 40 % masked; a forward pass has as many tokens on
both sides. Both run in one process and take turns. ``loss_difference`` is the largest one of a row's mean loss: it is
rounding, or the benchmark ends with an error. A ratio above 1 (*ours* to *theirs*) means that the batched forward pays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trainlarge.compression import Magnitude, Recipe, compress_grid
from trainlarge.compression.model_tensors import load_weights
from trainlarge.compression.weights import Weights
from trainlarge.config.data import DataConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.machine.device import device_name
from trainlarge.machine.environment import make_threads_yield
from trainlarge.models import attention
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS, logits_at
from trainlarge.models.shape import Shape
from trainlarge.tasks.evaluation import BATCH_TOKENS, EvaluationSet
from trainlarge.tasks.masked_lm import MaskedLM

LENGTH, VOCABULARY, MASKED = 64, 2048, 26
Tensors = Mapping[str, Tensor]
ROUNDING = 1e-4
"""Nats by which the mean losses of a row may differ."""


def main() -> None:
    options = _options()
    rows = [_measure(shape, count, options) for shape in options.shapes for count in options.variants]
    for row in rows:
        print(
            f"{row['shape']} {row['variants']} variants: {row['ours']:.2f} s one after the other, {row['theirs']:.2f} s"
            f" batched, ratio {row['ratio']:.2f}, losses within {row['loss_difference']:.1e}"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


class _Logits(nn.Module):
    """The forward pass of training and evaluation as a module, which ``functional_call`` asks for."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, positions: Tensor) -> Tensor:
        return logits_at(self.model, inputs, positions)


@torch.no_grad()
def _measure(shape: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    model, data = _model(shape), _data(options.rows)
    weights = Weights.of(model)
    variants = [_pruned(weights, share / (2 * count)) for share in range(count)]
    sides, difference = [], 0.0
    for _ in range(options.rounds + 1):
        started = time.perf_counter()
        one_by_one = _one_by_one(model, variants, data)
        middle = time.perf_counter()
        batched = _batched(model, variants, data)
        sides.append((middle - started, time.perf_counter() - middle))
        difference = max(difference, float((one_by_one - batched).abs().max()))
    if difference > ROUNDING:
        raise SystemExit(f"{shape}, {count} variants: losses differ by {difference}")
    ours, theirs = (statistics.median(side) for side in zip(*sides[1:], strict=True))
    return {
        "name": "batched_variants", "shape": shape, "variants": count, "unit": "s", "device": device_name("cpu"),
        "ours": ours, "theirs": theirs, "ratio": statistics.median(a / b for a, b in sides[1:]),
        "loss_difference": difference,
    }  # fmt: skip


def _one_by_one(model: PreTrainedModel, variants: list[Tensors], data: EvaluationSet) -> Tensor:
    """Mean losses [variants, rows] as the compress stage computes them."""
    found, task = [], MaskedLM(MaskedLMConfig(), DataConfig(), FORWARDS["fast"])
    for variant in variants:
        load_weights(model, variant)
        found.append(task.evaluate(model, data).row_losses)
    return torch.stack(found)


def _batched(model: PreTrainedModel, variants: list[Tensors], data: EvaluationSet) -> Tensor:
    """The same from one forward pass of all variants for each batch of rows."""
    module = _Logits(model)
    stacked = {f"model.{name}": torch.stack([variant[name] for variant in variants]) for name in variants[0]}

    def losses(state: Tensors, inputs: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        logits = functional_call(module, dict(state), (inputs, positions))
        return cross_entropy(logits, labels.flatten(), reduction="none").view_as(labels).mean(1)

    rows = max(1, BATCH_TOKENS["cpu"] // (LENGTH * len(variants)))
    batched = vmap(losses, in_dims=(0, None, None, None))
    parts = zip(*(tensor.split(rows) for tensor in data.batch.values()), strict=True)
    with patch.object(attention, "batched_attention", _attention):
        return torch.cat([batched(stacked, *part) for part in parts], dim=1)


def _attention(query: Tensor, key: Tensor, value: Tensor, _dropout: float, bias: Tensor | None) -> Tensor:
    """The products of ours: ``vmap`` refuses our own autograd function, even where no gradient is asked for."""
    assert bias is None, "no row is padded here"
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) @ value


def _model(shape: str) -> PreTrainedModel:
    width, depth = map(int, shape.split("x"))
    sizes = Shape("modern", width, depth, heads=width // 32, ffn_ratio=2.0, vocab_size=VOCABULARY, positions=LENGTH)
    return build_model(sizes, init_std=0.05, seed=0, attention="eager").eval()


def _pruned(weights: Weights, sparsity: float) -> Tensors:
    [(_, compressed)] = compress_grid(weights, [Recipe(Magnitude(sparsity))])
    return dict(compressed.weights)


def _data(rows: int) -> EvaluationSet:
    """Random rows: what is computed, and how long it takes, does not depend on them."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(5, VOCABULARY, (rows, LENGTH), generator=draw)
    positions = torch.rand((rows, LENGTH), generator=draw).argsort(1)[:, :MASKED].sort(1).values
    batch = {"input_ids": inputs, "predicted": positions, "labels": inputs.gather(1, positions)}
    return EvaluationSet(batch, fingerprint="")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one shape, few rounds: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--shapes", type=lambda text: text.split(","), help="such as 64x1,128x2")
    parser.add_argument("--variants", type=lambda text: list(map(int, text.split(","))), default=[4, 8, 16])
    parser.add_argument("--rounds", type=int, help="how often every side is timed")
    parser.add_argument("--rows", type=int, default=512, help="rows of the evaluation, of 64 tokens")
    options = parser.parse_args()
    options.shapes = options.shapes or (["64x2"] if options.quick else ["64x1", "64x2", "128x2"])
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


if __name__ == "__main__":
    make_threads_yield()
    main()
