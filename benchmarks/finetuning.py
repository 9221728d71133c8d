"""Finetuning against ``transformers.Trainer``: examples per second of each side, taking turns in one process.

    python benchmarks/finetuning.py [--quick] [--sets sst2,mnli] [--shapes 64x2,128x4] [--json FILE]

All sides train the same ModernBERT (width x depth, vocabulary 4096) on the same tokenized rows of ``../shared/data``,
cut at 128 tokens, in batches of 32 rows, for the same number of optimizer steps per turn, with AdamW and gradient
clipping at 1. Attention is computed as each side chooses. ``ours`` is the loop of a train job (Lightning,
``impl.forward=fast``, ``task.batches=bucketed``), which draws and pads its batches on the way. ``Trainer, defaults`` is
a Trainer as it comes, whose rows are padded to 128 beforehand. ``Trainer, by length`` has
``train_sampling_strategy=group_by_length`` and pads each batch to its longest row. Nobody evaluates, saves or logs, and
the start of a trainer is not counted. Printed are median rates and the median ratio of neighbouring turns.

Turns have as many steps as a group of the Trainer has batches, 50, so that it sees rows of all lengths.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from trainlarge.config.arch import ArchConfig
from trainlarge.config.data import DataConfig
from trainlarge.config.impl import ImplConfig
from trainlarge.config.optim import OptimConfig
from trainlarge.config.task import ClassificationConfig
from trainlarge.data.labelled import LabelledData
from trainlarge.machine.device import choose, default_attention
from trainlarge.models.build import build_model
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS
from trainlarge.models.shape import Shape
from trainlarge.tasks.classification import Classification
from trainlarge.training.loop import Loop
from trainlarge.training.module import Objective

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VOCABULARY, SEQUENCE, BATCH, STEPS = 4096, 128, 32, 50
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SETS: dict[str, tuple[str, str, str | None, int]] = {
    "sst2": ("validation.jsonl.gz", "sentence", None, 2),
    "mnli": ("validation_matched.jsonl.gz", "premise", "hypothesis", 3),
}
"""Validation file, columns of the texts, labels of each data set."""
Turn = Callable[[int], float]
"""Take the steps of turn number so many; seconds."""


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


def main() -> None:
    """Compare on each data set and shape."""
    options, rows = _options(), []
    for name in options.sets.split(","):
        task, prepared = prepared_set(name, options.quick)
        for shape in options.shapes.split(","):
            rows += compared(name, shape, task, prepared, options.turns)
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(row) for row in rows], indent=2))


def prepared_set(name: str, is_quick: bool) -> tuple[Classification, LabelledData]:
    """The task of a data set and its rows; for ``--quick`` the small file of validation is what is trained on."""
    validation, text, second, labels = SETS[name]
    train = DATA / name / ("train.jsonl.zst" if not is_quick else validation)
    keys = (
        {"files": (str(train),)}
        if is_quick
        else {"files": (str(train),), "validation_files": (str(DATA / name / validation),)}
    )
    vocabulary = 1024 if is_quick else VOCABULARY
    data = DataConfig(name="text", text_column=text, vocab_size=vocabulary, sequence_length=SEQUENCE, **keys)  # type: ignore[arg-type]
    task = Classification(
        ClassificationConfig(second_text_column=second, labels=labels, batches="bucketed"), data, FORWARDS["fast"]
    )
    return task, task.prepare(Path(tempfile.gettempdir()) / "trainlarge_finetuning")


def compared(name: str, shape: str, task: Classification, prepared: LabelledData, turns: int) -> list[Row]:
    """Rates of all sides with one shape, told as they are known."""
    contestants = {
        "ours": ours(new_model(shape, task, default_attention(DEVICE)), task, prepared),
        "Trainer, defaults": theirs(new_model(shape, task, "sdpa"), prepared, is_by_length=False),
        "Trainer, by length": theirs(new_model(shape, task, "sdpa"), prepared, is_by_length=True),
    }
    seconds: dict[str, list[float]] = {side: [] for side in contestants}
    for number in range(turns + 1):
        for side, turn in contestants.items():
            taken = turn(number)
            # The first turn warms up.
            seconds[side] += [taken] if number else []
    rate = {side: BATCH * STEPS / median(times) for side, times in seconds.items()}
    rows = []
    for side in list(contestants)[1:]:
        ratio = median(their / our for our, their in zip(seconds["ours"], seconds[side], strict=True))
        rows.append(Row(f"{name}, {side}", shape, rate["ours"], rate[side], ratio, "examples/s", DEVICE))
        print(
            f"{shape:7} {name}: ours {rate['ours']:8,.0f} : {rate[side]:8,.0f} {side} examples/s = {ratio:5.2f}",
            flush=True,
        )
    return rows


def new_model(shape: str, task: Classification, attention: str) -> PreTrainedModel:
    """The same model for everyone, with attention as our side or the library chooses it."""
    width, depth = map(int, shape.split("x"))
    arch = ArchConfig(width=width, depth=depth, positions=SEQUENCE)
    size = Shape.from_config(arch, task.data.vocab_size, task.config.labels)
    return build_model(size, init_std=0.68 / width**0.5, seed=0, attention=attention, head=Head.SEQUENCE_LABEL)


def ours(model: PreTrainedModel, task: Classification, prepared: LabelledData) -> Turn:
    """The loop of a train job."""
    began = 0.0

    def batch_of(step: int) -> dict[str, Tensor]:
        nonlocal began
        # The first batch of a turn is asked for when the trainer has started.
        began = began or time.perf_counter()
        return task.batch(prepared, 0, step, BATCH)

    implementation = choose(ImplConfig(precision="fp32"))
    optim = OptimConfig(peak_lr=1e-4, batch=BATCH * SEQUENCE)
    loop = Loop(model, Objective(task.loss, task.weight), batch_of, optim, implementation, seed=0)

    def turn(number: int) -> float:
        nonlocal began
        began = 0.0
        ended = 0.0

        def observe(_steps: int, _loss: Tensor) -> None:
            nonlocal ended
            implementation.synchronize()
            ended = time.perf_counter()

        loop.run(number * STEPS, (number + 1) * STEPS, lambda _step: 1.0, observe)
        return ended - began

    return turn


class Stopwatch(TrainerCallback):
    """The time from the first step to the end of the last."""

    began = ended = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step only."""
        self.began = self.began or time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After each."""
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.ended = time.perf_counter()


def theirs(model: PreTrainedModel, prepared: LabelledData, is_by_length: bool) -> Turn:
    """A Trainer."""
    rows = tokenized_rows(prepared, is_padded=not is_by_length)
    folder = tempfile.mkdtemp()

    def turn(number: int) -> float:
        watch = Stopwatch()
        more: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if is_by_length else {}
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            max_steps=STEPS,
            learning_rate=1e-4,
            seed=number,
            use_cpu=DEVICE == "cpu",
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=DEVICE == "cuda",
            **more,
        )
        trainer = Trainer(model, arguments, padded_to_longest(prepared.pad_id), rows, callbacks=[watch])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return watch.ended - watch.began

    return turn


def tokenized_rows(prepared: LabelledData, is_padded: bool) -> list[dict[str, list[int] | int]]:
    """Rows as a tokenizer gives them, at most 20,000."""
    count = min(len(prepared.train_rows), 20_000)
    table = prepared.rows("train", np.arange(count), SEQUENCE)
    lengths = table["attention_mask"].sum(1)
    return [
        {
            "input_ids": table["input_ids"][index, : SEQUENCE if is_padded else lengths[index]].tolist(),
            "attention_mask": table["attention_mask"][index, : SEQUENCE if is_padded else lengths[index]].tolist(),
            "labels": int(table["labels"][index, 0]),
        }
        for index in range(count)
    ]


def padded_to_longest(pad_id: int) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    """A collator that does what ``DataCollatorWithPadding`` does, and no more."""

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        length = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": pad_id, "attention_mask": 0}
        batch = {
            name: torch.tensor([row[name] + [value] * (length - len(row[name])) for row in rows])
            for name, value in fill.items()
        }
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}

    return collate


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="sst2,mnli", help="data sets, separated by commas")
    parser.add_argument("--shapes", default="128x4", help="width x depth, separated by commas")
    parser.add_argument("--quick", action="store_true", help="one small shape, few turns")
    parser.add_argument("--json", metavar="FILE", help="write the rows")
    options = parser.parse_args()
    options.turns = 1 if options.quick else 5
    if options.quick:
        options.sets, options.shapes = "sst2", "32x1"
    return options


if __name__ == "__main__":
    main()
