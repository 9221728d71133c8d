"""What a finished cell tells: ``record.json`` and the rows of ``metrics.jsonl``, one dataclass field per key.

A field states its unit and its meaning, and the frames make their columns from that (``trainlarge.results.columns``):
a new number of a record is one field here, and a value for it where the record is written. Keys are never renamed, and
a field that is added has a default, since records from before do not have it.

The numbers that a task is scored by, such as ``loss`` and ``accuracy``, are keys of the same records. They are not
fields here, since the task states them (``trainlarge.config.task``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal, TypeAlias

from trainlarge.config.group import Plain
from trainlarge.sweep.recorded import Recorded, key, later, plain

RECORD_SCHEMAS = {"train": 1, "compress": 1}
"""Raised when a key of a stage's record changes its meaning."""
Use: TypeAlias = Literal["train", "validation", "evaluation"]
"""What a text is for."""
Scores = Mapping[str, float | None]
"""Metric of a task -> value; None where the loss is not a number."""


@dataclass(frozen=True, kw_only=True)
class Clocks(Recorded):
    """How far training had come, on every clock."""

    step: int = key("1", "optimizer steps")
    tokens: int = key("1", "tokens seen in training")
    flops: int | float = key("FLOPs", "floating-point operations of training, those of the architecture, by formula")
    executed_flops: int | float | None = later(
        "FLOPs",
        "those of flops that were computed: forward=fast skips most of the last layer; NaN in records that do not know",
    )
    train_seconds: float = key("s", "time in training, as measured: no evaluation, checkpoint or data preparation")
    model_seconds: float = key("s", "steps times the steady-state step time, as known when the run ended")
    wall_seconds: float = key("s", "time since the run began, everything included")


@dataclass(frozen=True, kw_only=True)
class CurveRow(Clocks):
    """One row of ``metrics.jsonl``: a point of the curve of a train cell."""

    train_loss: float | None = key("loss", "training loss, mean since the row before")
    scores: Scores
    """The task's metrics on the evaluation set, each a key of the row."""
    lr: float = key("1", "learning rate at this step")
    part: str = key("text", "trunk (constant rate, shared between budgets) or branch (decay)")


@dataclass(frozen=True, kw_only=True)
class RecoveryRow(Recorded):
    """One row of ``metrics.jsonl`` of a compress cell whose recipe trains: a point of the curve of recovery."""

    step: int = key("1", "optimizer steps of recovery")
    flops: int | float = key("FLOPs", "floating-point operations of recovery so far, as in recover_flops")
    train_seconds: float = key("s", "time in recovery so far, as measured")
    train_loss: float | None = key("loss", "training loss, mean since the row before; null where it is no number")
    lr: float = key("1", "learning rate of this step")


@dataclass(frozen=True, kw_only=True)
class EvaluationData(Recorded):
    """Key ``data`` of a record: what the cell was evaluated on."""

    fingerprint: str = key(
        "text", "hash of the corpus, its split and its tokenizer settings", column="data_fingerprint"
    )
    evaluation_fingerprint: str = key("text", "hash of the evaluation rows and of what is predicted in them")
    evaluation_documents: int | None = later("1", "documents that the evaluation rows come from")
    effective_documents: float | None = later(
        "1", "equally long documents that would tell as much as those: (sum n)^2 / sum n^2 over their predictions"
    )


@dataclass(frozen=True, kw_only=True)
class TextRow(Recorded):
    """What was read and written of one text in one use, a row of the table of texts.

    Counts that are not known, or of which there can be none, are None.
    """

    text: str = key("text", "name of the source, or of the evaluation text; empty for all that is trained on")
    use: Literal["train", "validation", "evaluation"] = key("text", "train, validation, evaluation")
    documents: int = key("1", "documents, or rows with a label")
    tokens: int = key("1", "tokens of all documents, the separators between them counted")
    blank_rows: int | None = later(
        "1",
        "rows that lack text or label, which are left out; those of files that give both splits count for train",
    )
    replaced_rows: int | None = later("1", "rows in which U+FFFD stands for what is no text; counted as blank_rows are")
    repeated_documents: int | None = later("1", "training documents that are the same as one before them")
    trained_documents: int | None = later("1", "documents to evaluate on that stand in the training text too")
    long_documents: int | None = later("1", "documents of at least a million characters")
    longest: int | None = later("characters", "length of the longest document")


@dataclass(frozen=True, kw_only=True)
class TrainData(EvaluationData):
    """Key ``data`` of the record of a train cell: what it was trained and evaluated on."""

    train_tokens: int = key("1", "tokens of the training data in use")
    validation_tokens: int = key("1", "tokens of the validation data")
    overlap_documents: float | None = later(
        "1", "share of the validation documents that stand in the training text too"
    )
    overlap_passages: float | None = later(
        "1", "share of the validation text, in passages of 50 characters, that stands in the training text too"
    )
    token_frequency_loss: float | None = later(
        "loss",
        "evaluation loss of predicting by the frequencies of tokens, or of labels, in the training split alone",
        column="frequency_loss",
    )
    padding_share: float | None = later("1", "share of the tokens that were computed in training that was padding")
    epochs: float = key("1", "passes over the training data in use")
    repeated_documents: float | None = later("1", "share of the training documents that repeat one before them")
    sources: Mapping[str, Plain] | None = plain(is_optional=True)
    """Of each of ``data.sources``: ``tokens`` in use, ``share`` of an epoch, and ``epochs``, the passes over it."""
    texts: list[dict[str, Plain]] | None = plain(is_optional=True)
    """What was read and written of each text: the JSON of ``TextRow``; None in older records."""


@dataclass(frozen=True, kw_only=True)
class Environment(Recorded):
    """Key ``environment`` of a record: how and where the cell was computed."""

    device: str = key("text", "kind of device: cpu, cuda")
    device_name: str = key("text", "the device, as it calls itself")
    precision: str = key("text", "precision of training: fp32, bf16")
    attention: str = key("text", "how attention was computed")
    forward: str = key("text", "forward pass: fast, library")
    compile: str | None = later(
        "text", "how the training loss was compiled: none, inductor, graphs", before="none", is_optional=True
    )
    threads: int = key("1", "CPU threads of the job")
    strategy: str | None = later("text", "how devices share a batch: ddp or fsdp", before="ddp", is_optional=True)
    devices: int | None = later("1", "devices that shared each batch", before=1, is_optional=True)
    shared: bool = key("yes or no", "whether other work ran on the device")
    per_device: int | None = later(
        "1", "jobs that shared the device on purpose; from 2 on, times do not count", before=1, is_optional=True
    )
    before: list[dict[str, Plain]] | None = plain(is_optional=True)
    """How earlier steps were computed, oldest first: the same keys; empty where all were computed in one way."""
    micro_batch_rows: int | None = plain(is_optional=True)
    """Rows that were computed at once."""
    software: dict[str, str] = field(default_factory=dict)
    """Package -> version: Python and what computes."""


@dataclass(frozen=True, kw_only=True)
class Provenance(Recorded):
    """Key ``provenance`` of a record: where the result comes from."""

    commit: str | None = key("text", "git commit of the code; empty outside a checkout")
    dirty: bool | None = key("yes or no", "whether the code was changed since the commit")
    host: str = key("text", "machine that ran the cell")
    command: str = key("text", "command that ran the cell")
    started: float = key("s", "when the job started, since 1970")
    ended: float = key("s", "when the cell was finished, since 1970")


@dataclass(frozen=True, kw_only=True)
class RecordHead(Recorded):
    """What a record begins with."""

    schema: int
    """Version of the record's keys."""
    stage: str
    """``train`` or ``compress``."""
    cell: str = key("text", "cell id")
    study: str = key("text", "name of the study")


@dataclass(frozen=True, kw_only=True)
class TrainRecord(RecordHead, Clocks):
    """``record.json`` of a train cell. Where the loss stopped being a number, clocks are those of the last good row."""

    groups: ClassVar[Mapping[str, type[Recorded]]] = MappingProxyType(
        {"data": TrainData, "environment": Environment, "provenance": Provenance}
    )
    """Keys that are records of their own."""

    diverged: bool | None = later(
        "yes or no", "whether the loss stopped being a number; then loss, accuracy, perplexity are NaN", before=False
    )
    diverged_at: int | None = plain(is_optional=True)
    """Step at which it did."""
    last_good_step: int | None = plain(is_optional=True)
    """Step of the last row of the curve, whose weights are kept."""
    scores: Scores
    """The task's metrics at the end, each a key of the record."""
    selection: Scores | None = plain(is_optional=True)
    """The task's metrics at the end on the training rows that are held out to choose by; None where none are."""
    baseline: Scores | None = plain(is_optional=True)
    """The task's metrics but the loss, of predicting the most frequent token or label, or the mean label, always. The
    loss is ``token_frequency_loss`` of ``data``."""
    perplexity: float | None = later("1", "exp(loss)")
    weight_change: float | None = later(
        "1",
        "squared change of the matrices since the checkpoint over their squared norm, without the head; empty from "
        "initial weights",
        is_optional=True,
    )
    document_standard_error: float | None = later(
        "loss", "standard error of loss over the documents of the evaluation set"
    )
    train_set_loss: float | None = later("loss", "loss at the end on fixed rows of the training blocks in use")
    evaluations: Mapping[str, Plain] | None = plain(is_optional=True)
    """Of each of ``data.evaluations``: ``fingerprint`` of its rows, ``predictions``, and the task's metrics."""
    branch_step: int | None = later("1", "step at which the decay left the trunk")
    resumed_at: list[int] | None = plain()
    """Steps at which the run was resumed."""
    checkpoint_weights: str | None = plain(is_optional=True)
    """SHA-256 of the weights that it started from, where they are those of a train cell: that may be trained again."""
    budget_missed: float | None = later(
        "1",
        "steps that the budget in seconds buys over those that it got: above 1.2, times do not count; 1 where unknown",
        before=1.0,
    )
    step_seconds: float = key("s", "steady-state step time on this device")
    cpu_seconds_per_step: float | None = later(
        "s", "CPU time per step, over all threads, where steps were fastest; empty before"
    )
    thread_share: float | None = later(
        "1",
        "CPU time of the training thread over wall time where the step time was measured: below 0.8 other work was "
        "always there; empty where not known",
    )
    compile_seconds: float | None = later(
        "s", "time to compile in the process that ended the cell: in wall_seconds alone", before=0.0
    )
    parameters: int = key("1", "parameters, embeddings included")
    embedding_parameters: int = key("1", "parameters of embeddings")
    non_embedding_parameters: int = key("1", "parameters without embeddings")
    data: TrainData
    environment: Environment
    provenance: Provenance
    config: Mapping[str, Plain]
    """The configuration, as it was frozen."""
    files: Mapping[str, str] | None = plain(is_optional=True)
    """Path of each other result in the cell's folder -> SHA-256; None in records of older versions."""


@dataclass(frozen=True, kw_only=True)
class CompressRecord(RecordHead):
    """``record.json`` of a compress cell."""

    groups: ClassVar[Mapping[str, type[Recorded]]] = MappingProxyType(
        {"data": EvaluationData, "environment": Environment, "provenance": Provenance}
    )
    """Keys that are records of their own."""

    parent: str = key("text", "cell id of the train cell whose checkpoint was compressed")
    checkpoint_weights: str | None = plain(is_optional=True)
    """As in ``TrainRecord``."""
    recipe: Mapping[str, Plain]
    """The recipe, entry by entry."""
    description: str = key(
        "text", "what compression did, such as prune 60 % global, 4 bit row", "recipe", in_table=True
    )
    order: list[str] | None = plain()
    """Slots of the recipe in the order in which they were applied."""
    structure: Mapping[str, Plain] | None = plain()
    """What is left of the shapes."""
    unknown_share: float | None = later(
        "1", "share of the predicted tokens that were cut and count as unknown: another task", before=0.0
    )
    scores: Scores
    """The task's metrics of the compressed model, each a key of the record."""
    perplexity: float | None = later("1", "exp(loss)", in_table=True)
    dense_loss: float = key("loss", "loss of the train cell's checkpoint, evaluated in the same job")
    loss_increase: float = key("loss", "loss - dense_loss", in_table=True)
    loss_standard_error: float = key(
        "loss",
        "standard error of loss as if evaluation rows were independent: too small, see document_standard_error",
    )
    increase_standard_error: float = key(
        "loss",
        "standard error of loss_increase as if rows were independent: see increase_document_standard_error",
    )
    document_standard_error: float | None = later(
        "loss", "standard error of loss over the documents of the evaluation set"
    )
    increase_document_standard_error: float | None = later(
        "loss", "standard error of loss_increase over documents, paired"
    )
    loss_increase_low: float | None = later(
        "loss", "lower end of the 95 % interval of loss_increase: bootstrap, paired"
    )
    loss_increase_high: float | None = later("loss", "upper end of that interval")
    dense_scores: Scores | None = plain(is_optional=True)
    """The task's metrics of the train cell's checkpoint, evaluated in the same job; None in records of before."""
    changes: Mapping[str, Scores] | None = plain(is_optional=True)
    """Metric but the loss -> ``value``, by how much compression changed it, and ``low`` and ``high``, the ends of the
    95 % interval: bootstrap over documents, paired. None in records of before."""
    right_to_wrong: int | None = later("1", "predictions that were right before compression and are wrong after it")
    wrong_to_right: int | None = later("1", "predictions that were wrong before compression and are right after it")
    mcnemar_p: float | None = later(
        "1",
        "exact two-sided p of McNemar's test that compression turns as many predictions wrong as right; "
        "empty where a document has several predictions, which depend on each other",
    )
    sparsity: float = key(
        "1", "share of weights set to zero: the one asked for, or pruned_share where none is", in_table=True
    )
    pruned_share: float | None = later(
        "1", "share of the weights that are zero, counted, in the matrices that prune acts on; empty without pruning"
    )
    bits: float = key(
        "bits", "bits of a weight; those of the checkpoint (32, or 16 in half precision) where none", in_table=True
    )
    embedding_bits: float | None = later(
        "bits", "bits of a weight of an embedding; those of the checkpoint where none, empty in records of before"
    )
    activation_bits: float | None = later(
        "bits", "bits of the inputs of linear layers; 32 where they are not rounded", before=32
    )
    parameters: int = key("1", "parameters, embeddings included")
    embedding_parameters: int = key("1", "parameters of embeddings")
    nonzero_parameters: int = key("1", "parameters that are not zero", in_table=True)
    nonzero_parameters_without_embeddings: int = key("1", "the same without embeddings")
    ideal_bytes: int = key("bytes", "bits of the non-zero parameters, no overhead", in_table=True)
    ideal_bytes_without_embeddings: int = key("bytes", "the same without embeddings")
    dense_bytes: int | None = later("bytes", "parameters of the checkpoint, in its own data types, uncompressed")
    file_bytes: int = key("bytes", "size of the packed file", in_table=True)
    file_bytes_without_embeddings: int = key("bytes", "the same without embeddings")
    packing: int | None = later(
        "1", "version of the choice of encodings in the packed file: an older one may have made it larger", before=1
    )
    nearly_lost: str | None = later(
        "text", "matrices of which nearly nothing is left, and far less than of the rest; empty where there are none"
    )
    entropy_bits: float | None = later(
        "bits",
        "mean entropy of the codes of a quantized weight, 0 as a code of its own: no scales; empty where nothing is "
        "quantized",
        is_optional=True,
    )
    coded_bytes: int | None = later("bytes", "packed file with entropy_coding=zstd; empty in records of before")
    coded_bytes_without_embeddings: int | None = later("bytes", "the same without embeddings")
    zstd_bytes: int = key("bytes", "packed file after zstd at level 3")
    zstd_bytes_without_embeddings: int = key("bytes", "the same without embeddings")
    relative_squared_error: float = key("1", "squared change of the weights over their squared norm")
    evaluations: Mapping[str, Plain] | None = plain(is_optional=True)
    """As in the record of a train cell."""
    recover_steps: int | None = later("1", "optimizer steps of recovery training; 0 where there is none", before=0)
    recover_flops: int | float | None = later(
        "FLOPs",
        "floating-point operations of recovery training, those of the checkpoint's shape, by formula, and of a teacher",
        before=0,
    )
    recover_seconds: float | None = later(
        "s", "time in recovery training, as measured; recipes that share it each have all of it", before=0.0
    )
    recover_goal: float | None = later(
        "score", "score until which the last training of the recipe was to go on; empty where its length was fixed"
    )
    recover_score: float | None = later("score", "score of the weights that were kept, on the rows that it is about")
    recover_reached: bool | None = later("1", "whether recover_goal was reached; the best weights are kept if not")
    recover_teacher: str | None = later(
        "text", "train cell that taught in recovery training; empty where none did", before="", is_optional=True
    )
    recover_teacher_flops: int | float | None = later(
        "FLOPs", "those of recover_flops that are the teacher's forward passes", before=0, is_optional=True
    )
    recover_layer_map: str | None = later(
        "text",
        "layers of the student and the teacher that were compared, from 0, such as 0-1 1-3; empty where none were",
        before="",
        is_optional=True,
    )
    recover_precision: str | None = plain()
    """Precision of recovery training; None where there is none."""
    seconds: float = key("s", "time to compress and evaluate")
    data: EvaluationData
    environment: Environment
    provenance: Provenance
    config: Mapping[str, Plain]
    """The configuration, as it was frozen."""
    files: Mapping[str, str] | None = plain(is_optional=True)
    """Path of each other result in the cell's folder -> SHA-256; None in records of older versions."""


Record: TypeAlias = TrainRecord | CompressRecord
RECORDS: Mapping[str, type[TrainRecord] | type[CompressRecord]] = MappingProxyType(
    {"train": TrainRecord, "compress": CompressRecord}
)
"""Stage -> its record."""
