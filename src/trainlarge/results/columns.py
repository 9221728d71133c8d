"""Every column of every frame: where it comes from, its unit, what it means. The frames are built from these tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COMPUTED = ""
"""Source of a column that is derived from others."""


@dataclass(frozen=True)
class Column:
    """One column of a frame."""

    source: str
    """Dotted path in ``record.json`` (or key of a metrics row); empty where the column is computed."""
    unit: str
    """Unit of the values; ``text``, ``yes or no``, or ``1`` for a plain number or share."""
    description: str
    """What the value means."""
    missing: Any = None
    """What a record without the value means: one that is older than the key."""


_IDENTITY = {
    "study": Column("study", "text", "name of the study"),
    "host": Column("provenance.host", "text", "machine that ran the cell"),
    "commit": Column("provenance.commit", "text", "git commit of the code; empty outside a checkout"),
    "dirty": Column("provenance.dirty", "yes or no", "whether the code was changed since the commit"),
    "command": Column("provenance.command", "text", "command that ran the cell"),
    "started": Column("provenance.started", "s", "when the job started, since 1970"),
    "ended": Column("provenance.ended", "s", "when the cell was finished, since 1970"),
}
_DATA = {
    "data_fingerprint": Column("data.fingerprint", "text", "hash of the corpus, its split and its tokenizer settings"),
    "evaluation_fingerprint": Column(
        "data.evaluation_fingerprint", "text", "hash of the evaluation rows and their masks"
    ),
    "evaluation_documents": Column(
        "data.evaluation_documents", "1", "documents that the evaluation rows come from", missing=float("nan")
    ),
    "effective_documents": Column(
        "data.effective_documents",
        "1",
        "equally long documents that would tell as much as those: (sum n)^2 / sum n^2 over their masked tokens",
        missing=float("nan"),
    ),
}
_ENVIRONMENT = {
    "device": Column("environment.device", "text", "kind of device: cpu, cuda"),
    "device_name": Column("environment.device_name", "text", "the device, as it calls itself"),
    "precision": Column("environment.precision", "text", "precision of training: fp32, bf16"),
    "attention": Column("environment.attention", "text", "how attention was computed"),
    "forward": Column("environment.forward", "text", "forward pass: fast, library"),
    "compile": Column(
        "environment.compile", "text", "how the training loss was compiled: none, inductor, graphs", missing="none"
    ),
    "threads": Column("environment.threads", "1", "CPU threads of the job"),
    "strategy": Column("environment.strategy", "text", "how devices share a batch: ddp or fsdp", missing="ddp"),
    "devices": Column("environment.devices", "1", "devices that shared each batch", missing=1),
    "shared": Column("environment.shared", "yes or no", "whether other work ran on the device"),
    "per_device": Column(
        "environment.per_device", "1", "jobs that shared the device on purpose; from 2 on, times count not"
    ),
    "software": Column(COMPUTED, "text", "versions of Python and of the packages that compute"),
}
_SHAPE = {
    "shape": Column(COMPUTED, "text", "width and depth, such as d64/L2, and what else of arch varies between shapes"),
    "variant": Column(
        COMPUTED, "text", "other keys that the study varies (not shape, budget, seed), such as optim.lr=0.001"
    ),
    "series": Column(COMPUTED, "text", "shape and variant: cells of one series differ in budget and seed only"),
    "arch": Column("config.arch.name", "text", "family: modern (ModernBERT), roberta"),
    "width": Column("config.arch.width", "1", "hidden size"),
    "depth": Column("config.arch.depth", "1", "number of layers"),
    "heads": Column("config.arch.heads", "1", "attention heads of a layer"),
    "ffn_ratio": Column("config.arch.ffn_ratio", "1", "inner width of the feed-forward network, in widths"),
}
_TRAINING = {
    "seed": Column("config.seed", "1", "seed of initial weights, data order and masks"),
    "schedule": Column("config.schedule.name", "text", "learning-rate schedule: cooldown, matched, fixed"),
    "budget": Column("config.budget", "text", "the training budget, with its unit"),
    "budget_value": Column(COMPUTED, "1", "the budget as a number, in budget_unit"),
    "budget_unit": Column(COMPUTED, "text", "FLOPs, tokens, steps or s"),
    "clock": Column(
        "config.clock", "text", "what a budget in seconds was counted on: modelled, real", missing="modelled"
    ),
    "step": Column("step", "1", "optimizer steps"),
    "tokens": Column("tokens", "1", "tokens seen in training"),
    "flops": Column("flops", "FLOPs", "floating-point operations of training, those of the architecture, by formula"),
    "train_seconds": Column(
        "train_seconds", "s", "time in training, as measured: no evaluation, checkpoint or data preparation"
    ),
    "model_seconds": Column("model_seconds", "s", "steps times the steady-state step time on this device"),
    "wall_seconds": Column("wall_seconds", "s", "time since the run began, everything included"),
    "lr": Column("config.optim.lr", "1", "base learning rate"),
    "peak_lr": Column("config.optim.peak_lr", "1", "peak learning rate of this shape"),
    "batch": Column("config.optim.batch", "tokens", "tokens in a step"),
    "vocab_size": Column("config.data.vocab_size", "1", "entries of the tokenizer"),
    "sequence_length": Column("config.data.sequence_length", "tokens", "tokens in a row"),
    "data": Column("config.data.name", "text", "corpus: stdlib, text"),
    "split": Column("config.data.split", "text", "rule that divides training and validation text", missing="documents"),
    "fraction": Column("config.data.fraction", "1", "share of the training blocks that is used", missing=1.0),
    "task": Column("config.task.name", "text", "what the model learns"),
    "mask_rate": Column("config.task.mask_rate", "1", "share of positions masked in training"),
}
_EXECUTED_FLOPS = Column(
    "executed_flops",
    "FLOPs",
    "those of flops that were computed: forward=fast skips most of the last layer; NaN in records that do not know",
)
_QUALITY = {
    "loss": Column("loss", "nats a masked token", "evaluation loss"),
    "accuracy": Column("accuracy", "1", "share of masked tokens predicted right"),
    "perplexity": Column("perplexity", "1", "exp(loss)"),
    "document_standard_error": Column(
        "document_standard_error",
        "nats a masked token",
        "standard error of loss over the documents of the evaluation set",
        missing=float("nan"),
    ),
    "diverged": Column("", "bool", "whether the loss stopped being a number; then loss, accuracy, perplexity are NaN"),
}
_SIZES = {
    "parameters": Column("parameters", "1", "parameters, embeddings included"),
    "embedding_parameters": Column("embedding_parameters", "1", "parameters of embeddings"),
}

CELLS = {
    "cell": Column("cell", "text", "cell id"),
    **_SHAPE,
    **_TRAINING,
    **_QUALITY,
    **_SIZES,
    "executed_flops": _EXECUTED_FLOPS,
    "warmup_steps": Column("config.schedule.warmup_steps", "1", "steps of linear warm-up from zero, counted in step"),
    "non_embedding_parameters": Column("non_embedding_parameters", "1", "parameters without embeddings"),
    "step_seconds": Column("step_seconds", "s", "steady-state step time on this device"),
    "cpu_seconds_per_step": Column(
        "cpu_seconds_per_step", "s", "CPU time of a step, over all threads, where steps were fastest; empty before"
    ),
    "thread_share": Column(
        "thread_share",
        "1",
        "CPU time of the training thread over wall time where the step time was measured: below 0.8 other work was "
        "always there; empty where not known",
    ),
    "budget_missed": Column(
        "budget_missed",
        "1",
        "steps that the budget in seconds buys over those that it got: above 1.2, times count not; 1 where not known",
        missing=1.0,
    ),
    "compile_seconds": Column(
        "compile_seconds", "s", "time to compile in the process that ended the cell: in wall_seconds alone", missing=0.0
    ),
    "mixed": Column(
        COMPUTED,
        "yes or no",
        "whether a resume changed device or implementation (environment.before in the record); if so, times count not",
    ),
    "branch_step": Column("branch_step", "1", "step at which the decay left the trunk"),
    "disturbance": Column(COMPUTED, "1", "train_seconds / model_seconds, how disturbed the machine was: 1 if not"),
    "train_set_loss": Column(
        "train_set_loss", "nats a masked token", "loss at the end on fixed rows of the training blocks in use"
    ),
    "train_validation_gap": Column(
        COMPUTED,
        "nats a masked token",
        "train_set_loss - loss: below 0 as far as the model fits its training data better",
    ),
    "train_tokens": Column("data.train_tokens", "1", "tokens of the training data in use"),
    "validation_tokens": Column("data.validation_tokens", "1", "tokens of the validation data"),
    "overlap_documents": Column(
        "data.overlap_documents", "1", "share of the validation documents that stand in the training text too"
    ),
    "overlap_passages": Column(
        "data.overlap_passages",
        "1",
        "share of the validation text, in passages of 50 characters, that stands in the training text too",
    ),
    "token_frequency_loss": Column(
        "data.token_frequency_loss",
        "nats a masked token",
        "loss of predicting the evaluation tokens by their frequencies in the training split alone",
        missing=float("nan"),
    ),
    "epochs": Column("data.epochs", "1", "passes over the training data in use"),
    **_DATA,
    **_ENVIRONMENT,
    **_IDENTITY,
}
"""One row a train cell that is done."""

CURVES = {
    "cell": Column(COMPUTED, "text", "cell id"),
    "shape": _SHAPE["shape"],
    "variant": _SHAPE["variant"],
    "series": _SHAPE["series"],
    "seed": _TRAINING["seed"],
    "budget": _TRAINING["budget"],
    **{name: _TRAINING[name] for name in ("step", "tokens", "flops", "train_seconds", "model_seconds", "wall_seconds")},
    "executed_flops": _EXECUTED_FLOPS,
    "train_loss": Column("train_loss", "nats a masked token", "training loss, mean since the row before"),
    "loss": _QUALITY["loss"],
    "accuracy": _QUALITY["accuracy"],
    "lr": Column("lr", "1", "learning rate at this step"),
    "part": Column("part", "text", "trunk (constant rate, shared between budgets) or branch (decay)"),
}
"""One row a metrics row of a train cell; a trunk that cells share stands in each of them."""

PARENT = tuple(name for name in (*_SHAPE, *_TRAINING) if name != "seed")
"""Columns that a compress cell takes over from its train cell."""

COMPRESSION = {
    "cell": Column("cell", "text", "cell id of the compress cell"),
    "parent": Column("parent", "text", "cell id of the train cell whose checkpoint was compressed"),
    **{name: Column(COMPUTED, CELLS[name].unit, f"of the train cell: {CELLS[name].description}") for name in PARENT},
    "seed": Column(COMPUTED, "1", "of the train cell: seed of initial weights, data order and masks"),
    "recipe_seed": Column("config.seed", "1", "seed of the recipe"),
    "recipe": Column("description", "text", "what compression did, such as prune 60 % global, 4 bit row"),
    "vocabulary": Column("config.vocabulary.name", "text", "cut of the vocabulary; none", missing="none"),
    "unknown_share": Column(
        "unknown_share",
        "1",
        "share of the predicted tokens that were cut and count as unknown: another task",
        missing=0.0,
    ),
    "structure": Column("config.structure.name", "text", "what was removed: heads, ...; none", missing="none"),
    "factorize": Column("config.factorize.name", "text", "factorization of matrices; none", missing="none"),
    "prune": Column("config.prune.name", "text", "pruning method; none"),
    "scope": Column("config.prune.scope", "text", "where weights are ranked for pruning: global, tensor, row, block"),
    "sparsity": Column("sparsity", "1", "share of weights set to zero"),
    "quantize": Column("config.quantize.name", "text", "quantization method; none"),
    "granularity": Column("config.quantize.granularity", "text", "what shares one range: tensor, row, group"),
    "bits": Column("bits", "bits", "bits of a weight; 32 where none"),
    "embedding_bits": Column(
        "embedding_bits", "bits", "bits of a weight of an embedding; 32 where none, empty in records of before"
    ),
    "activations": Column(
        "config.activations.name",
        "text",
        "rounding of the inputs of linear layers: dynamic, static",
        missing="none",
    ),
    "activation_bits": Column(
        "activation_bits", "bits", "bits of the inputs of linear layers; 32 where they are not rounded", missing=32
    ),
    "recover": Column("config.recover.name", "text", "recovery training; none"),
    **_QUALITY,
    "dense_loss": Column(
        "dense_loss", "nats a masked token", "loss of the train cell's checkpoint, evaluated in the same job"
    ),
    "loss_increase": Column("loss_increase", "nats a masked token", "loss - dense_loss"),
    "loss_standard_error": Column(
        "loss_standard_error",
        "nats a masked token",
        "standard error of loss as if evaluation rows were independent: too small, see document_standard_error",
    ),
    "increase_standard_error": Column(
        "increase_standard_error",
        "nats a masked token",
        "standard error of loss_increase as if rows were independent: see increase_document_standard_error",
    ),
    "increase_document_standard_error": Column(
        "increase_document_standard_error",
        "nats a masked token",
        "standard error of loss_increase over documents, paired",
        missing=float("nan"),
    ),
    **_SIZES,
    "nonzero_parameters": Column("nonzero_parameters", "1", "parameters that are not zero"),
    "nonzero_parameters_without_embeddings": Column(
        "nonzero_parameters_without_embeddings", "1", "the same without embeddings"
    ),
    "ideal_bytes": Column("ideal_bytes", "bytes", "bits of the non-zero parameters, no overhead"),
    "ideal_bytes_without_embeddings": Column("ideal_bytes_without_embeddings", "bytes", "the same without embeddings"),
    "file_bytes": Column("file_bytes", "bytes", "size of the packed file"),
    "file_bytes_without_embeddings": Column("file_bytes_without_embeddings", "bytes", "the same without embeddings"),
    "zstd_bytes": Column("zstd_bytes", "bytes", "packed file after zstd at level 3"),
    "zstd_bytes_without_embeddings": Column("zstd_bytes_without_embeddings", "bytes", "the same without embeddings"),
    "relative_squared_error": Column(
        "relative_squared_error", "1", "squared change of the weights over their squared norm"
    ),
    "seconds": Column("seconds", "s", "time to compress and evaluate"),
    **_DATA,
    **_ENVIRONMENT,
    **_IDENTITY,
}
"""One row a compress cell that is done."""

COLUMNS = {
    frame: {name: (column.unit, column.description) for name, column in table.items()}
    for frame, table in (("cells", CELLS), ("curves", CURVES), ("compression", COMPRESSION))
}
"""Frame -> column -> (unit, description)."""
