"""Training throughput against ``transformers.Trainer``: tokens per second of both sides, alternating in one run.

    python benchmarks/throughput.py [--quick] [--compile-theirs] [--shapes 64x2,256x4] [--json FILE]

Both sides train the same ModernBERT (width x depth, GeGLU of twice the width, full attention, vocabulary 4096) on the
same rows of 64 tokens in batches of 32, masking 10 positions of each row, with AdamW and gradient clipping at 1. Each
contestant is a process of its own that keeps its model; they take turns of a few seconds. Printed are median rates and
the median ratio of neighbouring turns, which another program's load moves least.

What the Trainer is given: rows in memory, masked beforehand and collated by stacking, which spares it work that our
side does in every step; no evaluation, saving, logging or progress bar; and its first steps in every turn are not
counted. What our side does to its process (keeping freed memory) stays in its own. ``defaults`` is a Trainer as it
comes: fp32, attention as the library chooses. ``best`` has fused AdamW, eager attention on the CPU and, as our side,
bf16 where the device multiplies it (without AVX512-bf16 or AMX it would be many times slower than fp32).
``ours, Lightning`` is the same step as a train job runs it, in the Lightning trainer and with batches and masks drawn
for each (seed, step): what it loses against ``ours``, a bare loop, is the price of both. ``best, sparse`` also has
ModernBERT's own option to predict masked positions only. ``best, compiled`` is ``best`` with ``torch_compile``: always
there on CUDA, where the faster of the two is the Trainer's best; on the CPU with ``--compile-theirs``, since it takes
20 s and more for each shape and gains little at small sizes. Compiling falls into the turn that warms up.

Then the floating-point operations per second of our step against the peak of a large product, measured in the same run,
and its parts: data, embedding, attention, FFN, head, optimizer and Python, each as a share of its time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from step_profile import DATA, OPTIMIZER, Marks, step_shares, told
from trainlarge.config.arch import ArchConfig
from trainlarge.config.data import DataConfig
from trainlarge.config.impl import ImplConfig
from trainlarge.config.optim import OptimConfig
from trainlarge.config.task import MaskedLMConfig
from trainlarge.data.blocks import Blocks
from trainlarge.data.prepare import PreparedData
from trainlarge.machine.device import choose, default_attention, default_precision
from trainlarge.machine.memory import keep_freed_memory
from trainlarge.models.build import build_model
from trainlarge.models.flops import skipped_flops, training_flops
from trainlarge.models.forward import FORWARDS, loss_at
from trainlarge.models.shape import Shape
from trainlarge.tasks.masked_lm import MaskedLM, mask_tokens
from trainlarge.training.loop import Loop
from trainlarge.training.module import Objective

VOCABULARY, SEQUENCE, BATCH, MASKED = 4096, 64, 32, 10
MASK_ID, FIRST_REGULAR_ID = 3, 4
UNCOUNTED_STEPS, ENDLESS_STEPS = 3, 10**6
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PRECISION = default_precision(DEVICE)

QUIET: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_strategy": "no",
    "dataloader_pin_memory": DEVICE == "cuda",
}

Turn = Callable[[float], float]
"""Train for about so many seconds and return tokens per second."""

Ask = Callable[[str, float], float]
"""Let a contestant's process take such a turn with a shape."""

Rates = dict[str, list[float]]
"""Tokens per second by contestant and turn."""


class Clock:
    """Counts the steps of a turn, without the first ones, until ``seconds`` have passed."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start, self.rate = seconds, 0.0, 0.0

    def before(self, step: int) -> None:
        """Step number ``step`` begins."""
        if step == UNCOUNTED_STEPS:
            self.start = _now()

    def after(self, step: int) -> bool:
        """It has ended; whether the turn has."""
        counted = step + 1 - UNCOUNTED_STEPS
        if counted < 1 or time.perf_counter() - self.start < self.seconds:
            return False
        self.rate = counted * BATCH * SEQUENCE / (_now() - self.start)
        return True


@dataclass(frozen=True)
class Row:
    """One comparison, as ``--json`` writes it."""

    name: str
    shape: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    device: str
    precision: str = PRECISION


def main() -> None:
    """Run the duels of all shapes, print them and write them."""
    options = _options()
    contestants = {name: _start(name) for name in chosen(options.quick, options.compile_theirs)}
    rows: list[Row] = []
    for shape in options.shapes.split(","):
        rates, peak = duel(shape, contestants, options.turns, options.seconds)
        found = [*comparisons(shape, rates), peak_share(shape, rates[OURS], peak)]
        print("\n".join(map(_told, found)), flush=True)
        shares = where_time_goes(shape, options.profiled_steps)
        print(told(shape, shares), flush=True)
        rows += found
        rows += [Row(f"step, {part}", shape, share, 1.0, share, "share", DEVICE) for part, share in shares.items()]
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in rows], indent=1))


def duel(shape: str, contestants: dict[str, Ask], turns: int, seconds: float) -> tuple[Rates, float]:
    """Tokens per second of each contestant, turn by turn after one to warm up, and the matmul peak seen meanwhile."""
    rates: Rates = {name: [] for name in contestants}
    peaks = []
    for ask in contestants.values():
        ask(shape, 0.0)
    for _ in range(turns):
        peaks.append(matmul_peak())
        for name, ask in contestants.items():
            rates[name].append(ask(shape, seconds))
    return rates, max(peaks)


def comparisons(shape: str, rates: Rates) -> list[Row]:
    """Our rate against each of the Trainer's: medians, and the median ratio of neighbouring turns."""
    rows, mine = [], rates[OURS]
    for contestant, theirs in rates.items():
        if contestant != OURS:
            ratio = median(my / their for my, their in zip(mine, theirs, strict=True))
            name = f"training, against {contestant}"
            rows.append(Row(name, shape, median(mine), median(theirs), ratio, "tokens/s", DEVICE))
    return rows


def peak_share(name: str, rates: list[float], peak: float) -> Row:
    """FLOPs per second that our training step really does, against those of one large product in its precision."""
    shape = shape_of(name)
    row = training_flops(shape, SEQUENCE, MASKED) - 3 * skipped_flops(shape, SEQUENCE, MASKED)
    done = row * median(rates) / SEQUENCE
    return Row("training, against the matmul peak", name, done / 1e9, peak / 1e9, done / peak, "GFLOP/s", DEVICE)


def matmul_peak(size: int = 2048) -> float:
    """FLOPs per second of a square product in the precision of the step, the best of ten."""
    dtype = torch.bfloat16 if PRECISION == "bf16" else torch.float32
    left, right = torch.randn(2, size, size, dtype=dtype, device=DEVICE)
    times = [_now()]
    for _ in range(10):
        _ = left @ right
        times.append(_now())
    return 2 * size**3 / min(after - before for before, after in pairwise(times))


def shape_of(name: str) -> Shape:
    """Shape of ``width x depth``."""
    width, depth = map(int, name.split("x"))
    arch = ArchConfig(name="modern", width=width, depth=depth, ffn_ratio=2.0, positions=SEQUENCE)
    return Shape.from_config(arch, VOCABULARY)


def token_rows(number: int = 4096) -> torch.Tensor:
    """Random token ids, [number, sequence]; what they are does not change how long a step takes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(FIRST_REGULAR_ID, VOCABULARY, (number, SEQUENCE), generator=generator)


def masked(ids: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Ids with ``MASKED`` positions of each row hidden."""
    return mask_tokens(
        ids, MASKED, generator, mask_id=MASK_ID, vocab_size=VOCABULARY, first_regular_id=FIRST_REGULAR_ID
    )


def new_model(shape: Shape, attention: str) -> PreTrainedModel:
    """The same model for everyone."""
    return build_model(shape, init_std=0.68 / shape.width**0.5, seed=0, attention=attention)


def ours(shape: Shape) -> Turn:
    """Our training step: masking, fast forward pass and loss, clipping, fused AdamW."""
    keep_freed_memory()
    model: Any = new_model(shape, default_attention(DEVICE))
    model.to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    batches, generator = token_rows().to(DEVICE).split(BATCH), torch.Generator(DEVICE).manual_seed(0)

    def step(ids: torch.Tensor) -> None:
        batch = masked(ids, generator)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=PRECISION == "bf16"):
            loss = loss_at(model, *batch.values())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def turn(seconds: float) -> float:
        clock, index = Clock(seconds), 0
        while not clock.rate:
            clock.before(index)
            step(batches[index % len(batches)])
            clock.after(index)
            index += 1
        return clock.rate

    return turn


def where_time_goes(name: str, steps: int) -> dict[str, float]:
    """Share of our training step that each of its parts takes."""
    keep_freed_memory()
    model: Any = new_model(shape_of(name), default_attention(DEVICE))
    model.to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    blocks, generator = Blocks(token_rows().numpy().reshape(-1), SEQUENCE, seed=0), torch.Generator(DEVICE)

    def step(marks: Marks) -> None:
        marks.begin(DATA)
        batch = masked(torch.from_numpy(blocks.batch(0, BATCH)).to(DEVICE), generator)
        marks.end()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=PRECISION == "bf16"):
            loss = loss_at(model, *batch.values())
        marks.end()
        loss.backward()
        marks.begin(OPTIMIZER)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        marks.end()

    return step_shares(model, step, DEVICE, steps)


class TurnIsOverError(Exception):
    """Ends a segment of the loop."""


def ours_in_lightning(shape: Shape) -> Turn:
    """Our training step in a train job's own loop."""
    keep_freed_memory()
    optim, data = OptimConfig(peak_lr=1e-3), DataConfig(sequence_length=SEQUENCE)
    task = MaskedLM(MaskedLMConfig(mask_rate=MASKED / SEQUENCE), data, FORWARDS["fast"])
    tokens = token_rows().numpy().reshape(-1)
    prepared = PreparedData(Path(), "", Path(), VOCABULARY, tokens, tokens)
    model, objective = new_model(shape, default_attention(DEVICE)), Objective(task.loss, task.weight)
    loop = Loop(
        model, objective, lambda step: task.batch(prepared, 0, step, BATCH), optim, choose(ImplConfig()), seed=0
    )

    def turn(seconds: float) -> float:
        clock = Clock(seconds)

        def observe(steps: int, _loss: torch.Tensor) -> None:
            if clock.after(steps - 1):
                raise TurnIsOverError
            clock.before(steps)

        with suppress(TurnIsOverError):
            loop.run(0, ENDLESS_STEPS, lambda _step: 1.0, observe)
        return clock.rate

    return turn


def trainer_defaults(shape: Shape) -> Turn:
    """The Trainer as it comes."""
    model = new_model(shape, "sdpa")
    return _trainer_turn(model)


def trainer_best(shape: Shape, sparse: bool = False, compiled: bool = False) -> Turn:
    """The Trainer with every setting that makes it faster; ``torch_compile``, which may not, where it is asked for."""
    model: Any = new_model(shape, default_attention(DEVICE))
    model.sparse_prediction = sparse
    faster: dict[str, Any] = {"bf16": PRECISION == "bf16", "optim": "adamw_torch_fused", "torch_compile": compiled}
    return _trainer_turn(model, use_cpu=DEVICE == "cpu", **faster)


def trainer_sparse(shape: Shape) -> Turn:
    """The Trainer at its best, and the library's head at the masked positions only."""
    return trainer_best(shape, sparse=True)


def trainer_compiled(shape: Shape) -> Turn:
    """The Trainer at its best, and its model through ``torch.compile``."""
    return trainer_best(shape, compiled=True)


class Stopwatch(TrainerCallback):
    """Ends a Trainer's turn."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell the clock."""
        self.clock.before(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop when the time is up."""
        control.should_training_stop = self.clock.after(state.global_step - 1)


def _trainer_turn(model: PreTrainedModel, **settings: Any) -> Turn:
    rows, folder = _premasked_rows(), tempfile.mkdtemp()

    def turn(seconds: float) -> float:
        clock = Clock(seconds)
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, max_steps=ENDLESS_STEPS, **QUIET, **settings
        )
        trainer = Trainer(model, arguments, _stack, rows, callbacks=[Stopwatch(clock)])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.rate

    return turn


def _premasked_rows() -> list[dict[str, torch.Tensor]]:
    ids = token_rows()
    batch = masked(ids, torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, -100).scatter(1, batch["predicted"], batch["labels"])
    return [{"input_ids": row, "labels": label} for row, label in zip(batch["input_ids"], labels, strict=True)]


def _stack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


OURS, SPARSE, COMPILED = "ours", "Trainer best, sparse", "Trainer best, compiled"
CONTESTANTS: dict[str, Callable[[Shape], Turn]] = {
    OURS: ours,
    "ours, Lightning": ours_in_lightning,
    "Trainer defaults": trainer_defaults,
    "Trainer best": trainer_best,
    SPARSE: trainer_sparse,
    COMPILED: trainer_compiled,
}


def chosen(is_quick: bool, compile_theirs: bool) -> list[str]:
    """Contestants of a run."""
    left_out = {SPARSE: is_quick, COMPILED: not compile_theirs and (is_quick or DEVICE == "cpu")}
    return [name for name in CONTESTANTS if not left_out.get(name)]


def _start(contestant: str) -> Ask:
    """A process that takes turns for a contestant until this one ends."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=_serve, args=(contestant, there), daemon=True).start()

    def ask(shape: str, seconds: float) -> float:
        here.send((shape, seconds))
        return here.recv()

    return ask


def _serve(contestant: str, pipe: Connection) -> None:
    turn_of = lru_cache(maxsize=1)(lambda shape: CONTESTANTS[contestant](shape_of(shape)))
    with suppress(EOFError):
        while True:
            shape, seconds = pipe.recv()
            pipe.send(turn_of(shape)(seconds))


def _now() -> float:
    """Seconds, once the device has done what it was asked."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _told(row: Row) -> str:
    return f"{row.shape:7} {row.name:40} {row.ours:10,.0f} : {row.theirs:10,.0f} {row.unit:9} = {row.ratio:5.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="64x2,128x4,256x4,512x8", help="width x depth, separated by commas")
    parser.add_argument("--quick", action="store_true", help="one small shape, short turns, under a minute")
    parser.add_argument("--compile-theirs", action="store_true", help="torch_compile for a Trainer on the CPU, too")
    parser.add_argument("--json", metavar="FILE", help="write the rows")
    options = parser.parse_args()
    options.turns, options.seconds, options.profiled_steps = (3, 0.7, 5) if options.quick else (9, 1.5, 20)
    if options.quick and options.shapes == parser.get_default("shapes"):
        options.shapes = "64x2"
    return options


if __name__ == "__main__":
    main()
