"""Every column of every frame: where it comes from, its unit, what it means. The frames are built from these tables.

What a record says is stated at the fields of ``trainlarge.sweep.records``; what is read of a configuration, and what
follows from other columns, is stated here.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainlarge.config.plain import value_before
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import tasks
from trainlarge.results.parents import OF_PARENT, PARENT_PREFIX
from trainlarge.results.scores import ANY_TASK, all_scores
from trainlarge.sweep.recorded import UNKNOWN, Recorded, meanings
from trainlarge.sweep.records import Clocks, CompressRecord, CurveRow, RecordHead, TrainRecord

COMPUTED = ""
"""Source of a column that is derived from others."""
LOSS_UNIT = ANY_TASK["loss"].unit
"""Unit of every loss: a task says what it predicts (``trainlarge.config.task``)."""


@dataclass(frozen=True)
class Column:
    """One column of a frame."""

    source: str
    """Dotted path in ``record.json`` (or key of a metrics row); empty where the column is computed."""
    unit: str
    """Unit of the values; ``text``, ``yes or no``, or ``1`` for a plain number or share."""
    description: str
    """What the value means."""
    missing: object = None
    """What a record without the value means: one from before the key was added."""


def recorded(kind: type[Recorded], path: str = "") -> dict[str, Column]:
    """The columns that the fields of a record make.

    Args:
        kind: the record, or a part of one.
        path: where the part is in the record: ``data.``.
    """
    columns: dict[str, Column] = {}
    for name, known in meanings(kind).items():
        unit = LOSS_UNIT if known.unit == "loss" else known.unit
        columns[known.column or name] = Column(path + name, unit, known.text, known.before)
    return columns


def _configured(key: str, unit: str, text: str) -> Column:
    """A key of the configuration; what a record without it means is said at the field of the key."""
    return Column(f"config.{key}", unit, text, value_before(TrainConfig, key))


def _with_groups(kind: type[TrainRecord] | type[CompressRecord]) -> dict[str, Column]:
    columns = recorded(kind)
    for name, group in kind.groups.items():
        columns |= recorded(group, f"{name}.")
    return columns


_SHAPE = {
    "part": Column(
        COMPUTED,
        "text",
        "task, its data and where training starts, as far as these vary: cells of one part are compared, such as mlm",
    ),
    "shape": Column(COMPUTED, "text", "width and depth, such as d64/L2, and what else of arch varies between shapes"),
    "variant": Column(
        COMPUTED, "text", "other keys that the study varies (not shape, budget, seed), such as optim.lr=0.001"
    ),
    "series": Column(
        COMPUTED,
        "text",
        "shape and variant: cells of one series differ in budget and seed only; those from checkpoints also in their "
        "learning rate and in how long the checkpoint was trained",
    ),
    "arch": _configured(
        "arch.name", "text", "family: modern (ModernBERT), roberta, bert, llama; library: that of a folder"
    ),
    "width": _configured("arch.width", "1", "hidden size"),
    "depth": _configured("arch.depth", "1", "number of layers"),
    "heads": _configured("arch.heads", "1", "attention heads of a layer"),
    "ffn_ratio": _configured("arch.ffn_ratio", "1", "inner width of the feed-forward network, in widths"),
}
_TRAINING = {
    "seed": _configured("seed", "1", "seed of initial weights, data order and all that the task draws"),
    "schedule": _configured("schedule.name", "text", "learning-rate schedule: cooldown, matched, fixed"),
    "budget": _configured("budget", "text", "the training budget, with its unit"),
    "budget_value": Column(COMPUTED, "1", "the budget as a number, in budget_unit"),
    "budget_unit": Column(COMPUTED, "text", "FLOPs, tokens, steps or s"),
    "clock": _configured("clock", "text", "what a budget in seconds was counted on: modelled, real"),
    **{name: column for name, column in recorded(Clocks).items() if name != "executed_flops"},
    "lr": _configured("optim.lr", "1", "base learning rate"),
    "peak_lr": _configured("optim.peak_lr", "1", "peak learning rate of this shape"),
    "batch": _configured("optim.batch", "tokens", "tokens in a step"),
    "vocab_size": _configured("data.vocab_size", "1", "entries of the tokenizer"),
    "sequence_length": _configured("data.sequence_length", "tokens", "tokens in a row"),
    "data": _configured("data.name", "text", "corpus: stdlib, text"),
    "split": _configured("data.split", "text", "rule that divides training and validation text"),
    "fraction": _configured("data.fraction", "1", "share of the training blocks that is used"),
    "task": _configured("task.name", "text", "what the model learns"),
    **{
        name: _configured(f"task.{name}", unit, text)
        for task in tasks().values()
        for name, (unit, text) in task.columns.items()
    },
}
_METRICS = {name: ANY_TASK.get(name, metric) for name, metric in all_scores().items()}
_SCORES = {name: Column(name, metric.unit, metric.meaning, missing=UNKNOWN) for name, metric in _METRICS.items()}
_SELECTION = {
    f"selection_{name}": Column(
        f"selection.{name}", metric.unit, f"{metric.meaning}, on training rows that are held out to choose by", UNKNOWN
    )
    for name, metric in _METRICS.items()
}
_DENSE_SCORES = {
    f"dense_{name}": Column(
        f"dense_scores.{name}", metric.unit, f"of the checkpoint before compression: {metric.meaning}", missing=UNKNOWN
    )
    for name, metric in _METRICS.items()
    if name != "loss"
}
_CHANGES = {
    f"{name}_change{end and f'_{end}'}": Column(
        f"changes.{name}.{end or 'value'}", metric.unit, text.format(name=name), UNKNOWN
    )
    for name, metric in _METRICS.items()
    if name != "loss"
    for end, text in (
        ("", "{name} - dense_{name}"),
        ("low", "lower end of the 95 % interval of {name}_change: bootstrap over documents, paired"),
        ("high", "upper end of that interval"),
    )
}
_BASELINE = {
    f"baseline_{name}": Column(
        f"baseline.{name}",
        metric.unit,
        f"{metric.meaning}, of one prediction for all: the most frequent, or the mean",
        UNKNOWN,
    )
    for name, metric in _METRICS.items()
    if name != "loss"
}
_HEAD = recorded(RecordHead)

CELLS = {
    "cell": _HEAD["cell"],
    **_SHAPE,
    **_TRAINING,
    **_SCORES,
    **_SELECTION,
    **_BASELINE,
    **{name: column for name, column in _with_groups(TrainRecord).items() if name not in _HEAD},
    "warmup_steps": _configured("schedule.warmup_steps", "1", "steps of linear warm-up from zero, counted in step"),
    "mixed": Column(
        COMPUTED,
        "yes or no",
        "whether a resume changed device or implementation (environment.before in the record): times do not count",
    ),
    "disturbance": Column(COMPUTED, "1", "train_seconds / model_seconds, how disturbed the machine was: 1 if not"),
    "train_validation_gap": Column(
        COMPUTED, LOSS_UNIT, "train_set_loss - loss: below 0 as far as the model fits its training data better"
    ),
    "software": Column(COMPUTED, "text", "versions of Python and of the packages that compute"),
    "study": _HEAD["study"],
}
CELLS |= {
    "checkpoint": Column(
        COMPUTED,
        "text",
        "what training started from: id of a train cell, or name of a Hugging Face folder; empty for initial weights",
    ),
    "chosen": Column(
        COMPUTED,
        "yes or no",
        "whether it has the best selection score of the cells that differ in learning rate and budget only; yes "
        "where no selection scores were recorded",
    ),
    **{
        PARENT_PREFIX + name: Column(
            COMPUTED, CELLS[name].unit, f"of the train cell that it started from: {CELLS[name].description}"
        )
        for name in OF_PARENT
    },
    "total_flops": Column(COMPUTED, "FLOPs", "flops of the cell and of all train cells that it started from"),
    "total_seconds": Column(COMPUTED, "s", "train_seconds of the cell and of all train cells that it started from"),
}
"""One row per train cell that is done."""

CURVES = {
    "cell": Column(COMPUTED, "text", "cell id"),
    **{name: CELLS[name] for name in ("shape", "variant", "series", "seed", "budget")},
    **_SCORES,
    **recorded(CurveRow),
}
"""One row per metrics row of a train cell; a trunk that cells share stands in each of them."""

PARENT = tuple(name for name in (*_SHAPE, *_TRAINING) if name != "seed")
"""Columns that a compress cell takes over from its train cell."""

COMPRESSION = {
    "cell": _HEAD["cell"],
    "checkpoint": Column(
        COMPUTED, "text", "name of the Hugging Face folder that was compressed; empty for a train cell's checkpoint"
    ),
    **{name: Column(COMPUTED, CELLS[name].unit, f"of the train cell: {CELLS[name].description}") for name in PARENT},
    "seed": Column(COMPUTED, "1", "of the train cell: seed of initial weights, data order and all that the task draws"),
    "recipe_seed": _configured("seed", "1", "seed of the recipe"),
    **_SCORES,
    **_DENSE_SCORES,
    **_CHANGES,
    **{name: column for name, column in _with_groups(CompressRecord).items() if name not in _HEAD},
    "vocabulary": _configured("vocabulary.name", "text", "cut of the vocabulary; none"),
    "structure": _configured("structure.name", "text", "what was removed: heads, ...; none"),
    "factorize": _configured("factorize.name", "text", "factorization of matrices; none"),
    "prune": _configured("prune.name", "text", "pruning method; none"),
    "compress_head": Column(
        "config.compress_head", "yes or no", "whether the prediction head was compressed too", missing=True
    ),
    "entropy_coding": Column(
        "config.entropy_coding", "text", "entropy coding of the packed file: none, zstd", missing="none"
    ),
    "scope": _configured("prune.scope", "text", "where weights are ranked for pruning: global, tensor, row, block"),
    "quantize": _configured("quantize.name", "text", "quantization method; none"),
    "granularity": _configured("quantize.granularity", "text", "what shares one range: tensor, row, group"),
    "activations": _configured(
        "activations.name",
        "text",
        "rounding of the inputs of linear layers: dynamic, static",
    ),
    "recover": _configured("recover.name", "text", "training after pruning: retrain; none"),
    "recover_rewind": Column(
        "config.recover.rewind",
        "text",
        "where weights went back to: initial, steps of the parent; none",
        missing="none",
    ),
    "recover_control": Column(
        "config.recover.control", "text", "random_mask or reinitialized, to compare a ticket with; none", missing="none"
    ),
    "total_flops": Column(
        COMPUTED,
        "FLOPs",
        "total_flops of the train cell + recover_flops: all training of the compressed model, by formula",
    ),
    "total_seconds": Column(
        COMPUTED, "s", "total_seconds of the train cell + recover_seconds: all training of the model, as measured"
    ),
    "software": CELLS["software"],
    "study": _HEAD["study"],
}
"""One row per compress cell that is done."""

COLUMNS = {
    frame: {name: (column.unit, column.description) for name, column in table.items()}
    for frame, table in (("cells", CELLS), ("curves", CURVES), ("compression", COMPRESSION))
}
"""Frame -> column -> (unit, description)."""
