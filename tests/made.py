"""A study made from numbers that were once measured: three shapes, four budgets, twenty-four recipes.

Written through the real store, so that what reads it cannot tell it from a study that was trained.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir

from trainlarge.config.group import Plain
from trainlarge.config.plain import to_plain
from trainlarge.config.prune import Magnitude
from trainlarge.config.quantize import Uniform
from trainlarge.config.recipe import Recipe
from trainlarge.config.recover import Retrain
from trainlarge.config.register import register_schema
from trainlarge.config.schema import StageConfig
from trainlarge.config.share import share_folder
from trainlarge.config.task import TASKS as TASK_CONFIGS
from trainlarge.config.task import TaskConfig
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.compose import plain
from trainlarge.sweep.expand import read_config
from trainlarge.sweep.plan import make_cells
from trainlarge.sweep.records import TrainRecord
from trainlarge.sweep.status import State, Status
from trainlarge.sweep.store import CellFolder, Study

BUDGETS = (7.5, 15.0, 30.0, 60.0)
SHAPES: dict[tuple[int, int], dict[str, Any]] = {
    (64, 1): {"losses": (4.08, 3.38, 2.80, 2.53), "step_seconds": 0.0121, "parameters": 180_000, "fragile": 2.0},
    (64, 2): {"losses": (3.98, 3.18, 2.65, 2.31), "step_seconds": 0.0143, "parameters": 221_000, "fragile": 1.3},
    (128, 2): {"losses": (4.14, 3.52, 2.87, 2.39), "step_seconds": 0.0290, "parameters": 612_000, "fragile": 0.7},
}
"""Shape -> loss after each budget, and the rest of what its records are made from."""
SPARSITIES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75)
BITS = (32, 8, 4, 3)
TOKENS_PER_STEP = 2048
WEIGHTS_IN_MATRICES = 0.99

PREDICTIONS = np.array([15, 92, 18, 5, 2, 23, 5, 20, 30, 10, 100, 110, 35, 115, 40, 5, 25, 35, 5, 185, 15, 5, 5, 15, 80,
                        40, 15, 10, 5, 5, 10, 95, 15, 60, 30])  # fmt: skip
"""Masked tokens of the documents of a real evaluation set: 35, worth 15 equal ones."""
DOCUMENT_EFFECTS = np.random.default_rng(0).normal(0, 0.6, len(PREDICTIONS))
DOCUMENT_NOISE = 0.1

ENVIRONMENT = {
    "device": "cpu",
    "device_name": "Test CPU",
    "precision": "bf16",
    "attention": "eager",
    "forward": "fast",
    "threads": 2,
    "shared": True,
    "software": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0"},
}


TASKS = {
    "mlm": ("task.mask_rate=0.4",),
    "causal_lm": ("task=causal_lm", "arch=llama"),
    "classification": ("task=classification", "data=text", "data.files=[sentences.jsonl]"),
    "regression": ("task=regression", "data=text", "data.files=[sentences.jsonl]"),
}
"""Task -> the overrides of its train cells. Those of labelled rows read a file of the working directory."""


def make_study(
    path: Path,
    budgets: tuple[float, ...] = BUDGETS,
    compressed: bool = True,
    seed: int = 0,
    documents: bool = True,
    task: str = "mlm",
) -> Study:
    """Write the made study to ``path``; ``compressed`` makes its compress cells too.

    Without ``documents`` it is like a study of before there were losses per document.
    """
    study = Study(path)
    for shape, budget in product(SHAPES, budgets):
        folder = make_train_cell(study, shape, budget, seed, task)
        if compressed:
            for sparsity, bits in product(SPARSITIES, BITS):
                make_compress_cell(study, folder, sparsity, bits)
    for stage in ("train", "compress") if not documents else ():
        for folder in study.folders(stage):
            folder.document_losses.unlink()
            record = folder.record_data()
            for key in ("token_frequency_loss", "evaluation_documents", "effective_documents"):
                record["data"].pop(key, None)
            folder.write_record_data(
                {key: value for key, value in record.items() if not key.endswith("document_standard_error")}
            )
    return study


def make_train_cell(
    study: Study, shape: tuple[int, int], budget: float, seed: int = 0, task: str = "mlm", **changes: Any
) -> CellFolder:
    """Freeze and finish one train cell; ``changes`` go into its record."""
    cell = train_cell(study.name, shape, f"{budget:g} s", seed, task)
    return finish_train_cell(study, cell, shape, budget, **changes)


def finish_train_cell(study: Study, cell: Cell, shape: tuple[int, int], budget: float, **changes: Any) -> CellFolder:
    """Freeze ``cell`` and give it the results of a shape and a budget."""
    folder = study.folder("train", cell.id)
    folder.freeze(cell)
    rows = curve(shape, budget)
    folder.write_metrics(rows)
    folder.log.write_text("".join(f"step {row['step']}\n" for row in rows), encoding="utf-8")
    record = {**train_record(cell, shape, rows), **changes}
    if record["loss"] is not None:
        folder.write_document_losses(document_file(record, loss=record["loss"]))
    folder.write_record_data(record)
    folder.write_status(Status(State.DONE, attempts=1))
    return folder


def make_compress_cell(
    study: Study, parent: CellFolder, sparsity: float, bits: int, recover: Retrain | None = None
) -> CellFolder:
    """Freeze and finish one compress cell of the train cell ``parent``."""
    prune, quantize = Magnitude(sparsity) if sparsity else None, Uniform(bits) if bits < 32 else None
    recipe = Recipe(prune=prune, recover=recover, quantize=quantize)
    config = replace(default_config("compress"), study=study.name, checkpoint=parent.id, recipe=recipe)
    cell = Cell("compress", replace(config, data=None, task=None))
    folder = study.folder("compress", cell.id)
    folder.freeze(cell)
    record = compress_record(cell, parent.record_data(), sparsity, bits)
    losses = {key: record[key] for key in ("loss", "dense_loss")}
    folder.write_document_losses(document_file(parent.record_data(), **losses))
    folder.write_record_data(record)
    folder.write_status(Status(State.DONE, attempts=1))
    return folder


def document_file(trained: dict[str, Any], **means: float) -> dict[str, Any]:
    """Losses per document whose means are as given: hard and easy documents, and what a checkpoint finds hard.

    Not drawn from the cell's id, which changes with the standard library.
    """
    config = trained["config"]
    name = f"{config['arch']['width']} {config['arch']['depth']} {config['budget']} {config['seed']}"
    own = np.random.default_rng(list(name.encode()))
    deviations = DOCUMENT_EFFECTS + own.normal(0, DOCUMENT_NOISE, len(PREDICTIONS))
    deviations -= (deviations * PREDICTIONS).sum() / PREDICTIONS.sum()
    # What compression adds differs between documents in proportion to it.
    share = own.normal(1, 0.2, len(PREDICTIONS))
    share /= (share * PREDICTIONS).sum() / PREDICTIONS.sum()
    base = means.get("dense_loss", means["loss"])
    sums = {key: PREDICTIONS * (base + deviations + share * (mean - base)) for key, mean in means.items()}
    return {
        "documents": list(range(len(PREDICTIONS))),
        "predictions": PREDICTIONS.tolist(),
        **{key: [round(value, 4) for value in values.tolist()] for key, values in sums.items()},
    }


@cache
def default_config(stage: str, task: str = "mlm") -> StageConfig:
    """The configuration of a stage as made cells have it."""
    register_schema()
    data = ["data.vocab_size=2048", "data.sequence_length=64"]
    overrides = ["checkpoint=0"] if stage == "compress" else [*data, *TASKS[task]]
    with initialize_config_dir(str(share_folder() / "conf"), version_base="1.3"):
        return read_config(stage, plain(compose(stage, overrides)))


def train_cell(study: str, shape: tuple[int, int], budget: str, seed: int = 0, task: str = "mlm") -> Cell:
    """The resolved cell of a shape and a budget."""
    config = replace(default_config("train", task), study=study, seed=seed, budget=budget)
    return make_cells("train", [replace(config, arch=replace(config.arch, width=shape[0], depth=shape[1]))])[0]


def curve(shape: tuple[int, int], budget: float) -> list[dict[str, Any]]:
    """Rows at doubling steps: the trunk half a nat above the branches, ending in the branch at ``budget``."""
    last = steps_of(shape, budget)
    steps = [step for step in (25 * 2**i for i in range(10)) if step < 0.8 * last]
    return [_row(shape, step, "trunk", 0.5) for step in steps] + [_row(shape, last, "branch", 0.0)]


def steps_of(shape: tuple[int, int], budget: float) -> int:
    """Steps of a budget in seconds."""
    return round(budget / SHAPES[shape]["step_seconds"])


def loss_at(shape: tuple[int, int], seconds: float) -> float:
    """Loss of a branch at ``seconds``: as measured, between budgets straight in the logarithm of time."""
    position = min(max(math.log2(seconds / BUDGETS[0]), -2.0), len(BUDGETS) - 1.0)
    left = min(max(math.floor(position), 0), len(BUDGETS) - 2)
    before, after = SHAPES[shape]["losses"][left : left + 2]
    return float(before + (position - left) * (after - before))


def _row(shape: tuple[int, int], step: int, part: str, above: float) -> dict[str, Any]:
    made = SHAPES[shape]
    seconds = step * made["step_seconds"]
    loss = loss_at(shape, seconds) + above
    return {
        "step": step,
        "tokens": step * TOKENS_PER_STEP,
        "flops": 6 * step * TOKENS_PER_STEP * made["parameters"],
        "train_seconds": 1.1 * seconds,
        "model_seconds": seconds,
        "wall_seconds": 1.1 * seconds + 2.5,
        "train_loss": loss + 0.2,
        "loss": loss,
        "accuracy": max(0.0, 0.811 - 0.122 * loss),
        "lr": 0.003 if part == "trunk" else 0.0001,
        "part": part,
    }


def train_record(cell: Cell, shape: tuple[int, int], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of a made train cell, in the form that the train stage writes."""
    last, made = rows[-1], SHAPES[shape]
    clocks = ("loss", "accuracy", "step", "tokens", "flops", "train_seconds", "model_seconds", "wall_seconds")
    embedding = 2048 * shape[0]
    return {
        "schema": 1, "stage": "train", "cell": cell.id, "study": cell.config.study,
        **{key: last[key] for key in clocks}, **_other_score(cell.as_train.task, last["accuracy"]),
        "document_standard_error": 0.15,
        "perplexity": math.exp(last["loss"]), "train_set_loss": last["loss"] - 0.05,
        "branch_step": round(0.8 * last["step"]), "step_seconds": made["step_seconds"],
        "parameters": made["parameters"], "embedding_parameters": embedding,
        "non_embedding_parameters": made["parameters"] - embedding,
        "data": {"fingerprint": cell.config.data.fingerprint, "evaluation_fingerprint": "cab0042bf0e5c847",
                 "token_frequency_loss": 5.9, "evaluation_documents": len(PREDICTIONS), "effective_documents": 15.0,
                 "train_tokens": 5_230_716, "validation_tokens": 561_272, "epochs": last["tokens"] / 5_230_716},
        "environment": ENVIRONMENT, "provenance": provenance("train"), "config": to_plain(cell.config),
    }  # fmt: skip


def _other_score(task: TaskConfig | type[TaskConfig], accuracy: float) -> dict[str, float]:
    """The score that the task is judged by, where that is another than the loss."""
    return {} if task.main_metric == "loss" else {task.main_metric: accuracy}


def compress_record(cell: Cell, parent: dict[str, Any], sparsity: float, bits: int) -> dict[str, Any]:
    """The record of a made compress cell; the increase grows with sparsity and falls with bits and size."""
    arch = parent["config"]["arch"]
    made = SHAPES[arch["width"], arch["depth"]]
    increase = made["fragile"] * (4 * sparsity**2.5 + (0.0 if bits == 32 else 0.1 * 4.0 ** (4 - bits)))
    recipe, task = cell.as_compress.recipe, TASK_CONFIGS[parent["config"]["task"]["name"]]
    accuracy = max(0.0, parent["accuracy"] - 0.1 * increase)
    parameters = parent["parameters"]
    matrices = WEIGHTS_IN_MATRICES * parameters
    nonzero = round(parameters - sparsity * matrices)
    ideal = round((parameters - matrices) * 4 + (1 - sparsity) * matrices * bits / 8)
    file_bytes = ideal + 2000 + (round(matrices / 8) if sparsity else 0)
    return {
        "schema": 1, "stage": "compress", "cell": cell.id, "study": cell.config.study, "parent": parent["cell"],
        "recipe": recipe.to_json(), "description": recipe.describe(),
        "loss": parent["loss"] + increase, "accuracy": accuracy, **_other_score(task, accuracy),
        "perplexity": math.exp(parent["loss"] + increase), "dense_loss": parent["loss"], "loss_increase": increase,
        "loss_standard_error": 0.02, "increase_standard_error": 0.002 + 0.02 * increase,
        "document_standard_error": 0.15, "increase_document_standard_error": 0.004 + 0.05 * increase,
        "sparsity": sparsity, "bits": bits, "nonzero_parameters": nonzero,
        "nonzero_parameters_without_embeddings": round(nonzero * 0.6), "ideal_bytes": ideal,
        "ideal_bytes_without_embeddings": round(ideal * 0.6), "file_bytes": file_bytes,
        "file_bytes_without_embeddings": round(file_bytes * 0.6), "parameters": parameters,
        "embedding_parameters": parent["embedding_parameters"], "relative_squared_error": increase / 10, "seconds": 0.4,
        **recovery_keys(recipe, parent),
        "data": {key: parent["data"][key] for key in ("fingerprint", "evaluation_fingerprint")},
        "environment": ENVIRONMENT, "provenance": provenance("compress"), "config": to_plain(cell.config),
    }  # fmt: skip


def bare_record(cell_id: str, **values: Plain) -> dict[str, Plain]:
    """As little as a record must have."""
    return {"cell": cell_id, **values, "data": {}, "environment": {}, "provenance": {}, "config": {}}


def recovery_keys(recipe: Recipe, parent: dict[str, Any]) -> dict[str, Any]:
    """What a record says of recovery: each step of it takes as long as one of the checkpoint."""
    steps = recipe.recover.steps(parent["step"], epoch_steps=0) if isinstance(recipe.recover, Retrain) else 0
    return {
        "recover_steps": steps,
        "recover_flops": steps * parent["flops"] // parent["step"],
        "recover_seconds": steps * parent["train_seconds"] / parent["step"],
    }


@cache
def _any_record() -> dict[str, Any]:
    shape, budget = (64, 1), 7.5
    return train_record(train_cell("any", shape, f"{budget:g} s"), shape, curve(shape, budget))


def any_record(cell_id: str, **values: Plain) -> TrainRecord:
    """The record of some train cell, as if it were that of ``cell_id``; ``values`` are further keys."""
    return TrainRecord.from_json({**_any_record(), "cell": cell_id, **values})


def provenance(stage: str) -> dict[str, Any]:
    """Where a made record comes from."""
    command = f"trainlarge {stage} -m +sweeps=made/{stage}"
    return {
        "commit": "0" * 40,
        "dirty": False,
        "host": "maker",
        "command": command,
        "started": 1.7e9,
        "ended": 1.7e9 + 60,
    }
