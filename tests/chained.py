"""A study made by hand that pretrains, finetunes on labelled data and compresses what was finetuned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import made
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import write_json
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study

SEEDS = (0, 1, 2)
SHIFTS = {0: -0.001, 1: 0.0, 2: 0.001}
"""What a seed adds to an accuracy."""


@dataclass(frozen=True)
class Finetuned:
    """What finetuned models of a study are like."""

    data: str = "sst2"
    """Folder of the labelled files."""
    per_nat: float = 0.1
    """Accuracy that a nat of pretraining loss costs: 0.95 at no loss."""
    harder: float = 0.0
    """Accuracy that a million parameters cost beyond that."""
    drop: float = 0.01
    """Accuracy that 4 bits cost the most fragile shape."""
    drop_per_doubling: float = 0.0
    """What a doubling of the pretraining budget adds to that."""

    def accuracy(self, parent: dict[str, Any]) -> float:
        """Of the model that was pretrained so."""
        return float(0.95 - self.per_nat * parent["loss"] - self.harder * parent["parameters"] / 1e6)


def make_chain(
    path: Path,
    tasks: tuple[Finetuned, ...] = (Finetuned(),),
    seeds: tuple[int, ...] = SEEDS,
    recipes: tuple[tuple[float, int], ...] = ((0.0, 32), (0.0, 8), (0.0, 4), (0.6, 32), (0.6, 4)),
) -> Study:
    """Every shape of ``made`` after every budget, finetuned on each data set, compressed with each recipe."""
    study = Study(path)
    for shape, budget, seed in product(made.SHAPES, made.BUDGETS, seeds):
        parent = made.make_train_cell(study, shape, budget, seed)
        for task in tasks:
            folder = finetune(study, parent, task)
            for sparsity, bits in recipes:
                compress(study, folder, task, sparsity, bits)
    return study


def finetune(
    study: Study, parent: CellFolder, task: Finetuned, lr: float = 1e-4, budget: str = "2 epochs", **changes: Any
) -> CellFolder:
    """Freeze and finish a cell that starts from the train cell ``parent``; ``changes`` go into its record."""
    before = parent.record_data()
    config = before["config"]
    shape, seed = (config["arch"]["width"], config["arch"]["depth"]), config["seed"]
    cell = _cell(study, parent.id, task, shape, seed, lr, budget)
    return train_on_labels(study, cell, task, task.accuracy(before) + SHIFTS[seed], **changes)


def train_from_initial_weights(
    study: Study, shape: tuple[int, int], seed: int, task: Finetuned, accuracy: float, lr: float, **changes: Any
) -> CellFolder:
    """Freeze and finish a cell that was never pretrained; ``changes`` go into its record."""
    return train_on_labels(study, _cell(study, None, task, shape, seed, lr, "2 epochs"), task, accuracy, **changes)


def train_on_labels(study: Study, cell: Cell, task: Finetuned, score: float, **changes: Any) -> CellFolder:
    """Freeze and finish a cell whose accuracy is ``score``."""
    arch = cell.as_train.arch
    shape = (arch.width, arch.depth)
    folder = study.folder("train", cell.id)
    folder.freeze(cell)
    rows = made.curve(shape, made.BUDGETS[0])
    record = {
        **made.train_record(cell, shape, rows),
        **{"loss": 1.0 - score, "accuracy": score},
        **changes,
    }
    record["data"] |= {"fingerprint": task.data, "evaluation_fingerprint": task.data, "token_frequency_loss": 0.69}
    rows[-1] |= {"loss": record["loss"], "accuracy": record["accuracy"]}
    folder.write_metrics(rows)
    folder.write_record_data(record)
    folder.write_status(Status(State.DONE, attempts=1))
    return folder


def _cell(
    study: Study, parent: str | None, task: Finetuned, shape: tuple[int, int], seed: int, lr: float, budget: str
) -> Cell:
    config: Any = made.default_config("train", "classification")
    arch = replace(made.train_cell(study.name, shape, "1 s").as_train.arch, width=shape[0], depth=shape[1])
    return Cell(
        "train",
        replace(
            config,
            study=study.name,
            seed=seed,
            checkpoint=parent,
            budget=budget,
            arch=arch,
            optim=replace(config.optim, lr=lr, peak_lr=lr),
            data=replace(config.data, files=(f"{task.data}/train.jsonl",), fingerprint=task.data),
        ),
    )


def compress(study: Study, parent: CellFolder, task: Finetuned, sparsity: float, bits: int) -> CellFolder:
    """Freeze and finish a compress cell of a finetuned cell; ``drop`` says what it costs."""
    folder = made.make_compress_cell(study, parent, sparsity, bits)
    record, trained = folder.record_data(), parent.record_data()
    arch, start = trained["config"]["arch"], study.folder("train", trained["config"]["checkpoint"]).record_data()
    fragile = made.SHAPES[arch["width"], arch["depth"]]["fragile"] / 2.0
    doublings = made.BUDGETS.index(float(start["config"]["budget"].split()[0]))
    rounding = fragile * task.drop * 4.0 ** (4 - bits) * (bits < 32) + task.drop_per_doubling * doublings * (bits == 4)
    drop = rounding + fragile * task.drop * (sparsity > 0)
    record |= {"accuracy": trained["accuracy"] - drop, "dense_loss": trained["loss"], "loss": trained["loss"] + drop}
    record["loss_increase"] = drop
    folder.document_losses.unlink()
    folder.write_record_data(record)
    return folder


def add_weight_errors(study: Study, shrink: float) -> None:
    """Every compress cell moved each matrix by 0.01, of the deeper models ``shrink`` times as far."""
    for folder in study.folders("compress"):
        record = folder.record_data()
        config = study.folder("train", record["parent"]).record_data()["config"]
        change = 0.01 * (shrink if config["arch"]["depth"] == 2 else 1.0) * (1 + 0.01 * config["seed"])
        error = {"weights": 100, "mean_absolute_change": change, "spread": 0.0, "squared_norm": 1.0}
        names = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
        content = {f"model.layers.0.{name}.weight": {**error, "relative_squared_error": 0.1} for name in names}
        write_json(folder.weight_errors, content)
        folder.write_record_data(record)
