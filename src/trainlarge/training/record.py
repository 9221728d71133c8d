"""The record of a train cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from trainlarge.config.group import Plain
from trainlarge.config.plain import to_plain
from trainlarge.data.mixed_blocks import MixedBlocks
from trainlarge.machine.provenance import origin, software
from trainlarge.models.counts import parameter_counts
from trainlarge.models.shape import head_of, shape_of
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.records import RECORD_SCHEMAS, Clocks, CurveRow, Environment, Scores, TrainData, TrainRecord
from trainlarge.tasks.evaluation import EvaluatedText, perplexity, texts_json
from trainlarge.tasks.packed_text import PackedText
from trainlarge.training.context import TrainContext


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a record says of the run, apart from its curve; the fields of ``TrainRecord`` say what each means."""

    started: float
    """When the job started, in seconds since 1970."""
    command: str | None
    """The command that runs the cell; None where Python code does."""
    before: tuple[dict[str, Plain], ...]
    """How earlier steps were computed: see ``RunTiming``."""
    branch_step: int | None
    resumed_at: list[int]
    budget_missed: float | None


@dataclass(frozen=True, kw_only=True)
class EndEvaluation:
    """What was evaluated at the end of a cell."""

    last: CurveRow
    """The last row of its curve."""
    train_set_loss: float
    """Loss on fixed rows of the training data."""
    document_standard_error: float
    """Standard error of the loss over the documents of the evaluation set."""
    selection: Scores | None
    """Metrics on the training rows that are held out to choose by; None where none are."""
    weight_change: float | None
    """Squared change of the weights since the checkpoint over their squared norm; None from initial weights."""
    texts: Mapping[str, EvaluatedText]
    """What each of ``data.evaluations`` gave."""


def finished_record(cell: Cell, context: TrainContext, run: RunFacts, ending: EndEvaluation) -> TrainRecord:
    """The result of a cell that trained to the end of its budget.

    Args:
        cell: the cell.
        context: what it was trained with.
        run: what is known of the run.
        ending: what was evaluated at its end.
    """
    scores = ending.last.scores
    return replace(
        _record(cell, context, run, ending.last),
        diverged=False,
        scores={name: scores.get(name) for name in cell.as_train.task.metrics},
        selection=ending.selection,
        weight_change=ending.weight_change,
        baseline=_without_loss(context.baseline),
        perplexity=perplexity(scores["loss"]),
        document_standard_error=ending.document_standard_error,
        train_set_loss=ending.train_set_loss,
        evaluations=texts_json(ending.texts),
    )


def diverged_record(cell: Cell, context: TrainContext, run: RunFacts, last: CurveRow | None, step: int) -> TrainRecord:
    """The result of a cell whose loss stopped being a number at ``step``: a result, not a crash.

    Scores are null; clocks and counts are those of the last good row of the curve, 0 where there is none.
    """
    clocks = last or NOTHING_TRAINED
    return replace(_record(cell, context, run, clocks), diverged=True, diverged_at=step, last_good_step=clocks.step)


NOTHING_TRAINED = Clocks(step=0, tokens=0, flops=0, executed_flops=0, train_seconds=0, model_seconds=0, wall_seconds=0)
"""Clocks of a run without a row of the curve."""


def _record(cell: Cell, context: TrainContext, run: RunFacts, last: Clocks) -> TrainRecord:
    """The record of a cell without what was evaluated at its end."""
    counts = parameter_counts(shape_of(cell.as_train), head_of(cell.as_train))
    return TrainRecord(
        schema=RECORD_SCHEMAS["train"],
        stage="train",
        cell=cell.id,
        study=cell.config.study,
        step=last.step,
        tokens=last.tokens,
        flops=last.flops,
        executed_flops=last.executed_flops,
        train_seconds=last.train_seconds,
        model_seconds=last.model_seconds,
        wall_seconds=last.wall_seconds,
        scores=dict.fromkeys(cell.as_train.task.metrics),
        branch_step=run.branch_step,
        resumed_at=run.resumed_at,
        checkpoint_weights=context.start.weights if context.start else None,
        budget_missed=run.budget_missed,
        step_seconds=context.run_timing.step_seconds,
        cpu_seconds_per_step=context.timing.cpu_seconds(),
        thread_share=context.timing.thread_share(),
        compile_seconds=context.compiling.seconds,
        parameters=counts.total,
        embedding_parameters=counts.embedding,
        non_embedding_parameters=counts.non_embedding,
        data=_data(context, last.step),
        environment=_environment(context, run),
        provenance=origin(run.command, run.started),
        config=to_plain(cell.config),
    )


def _without_loss(scores: Scores) -> Scores:
    """Scores other than the loss, which has its own key."""
    return {name: value for name, value in scores.items() if name != "loss"}


def _environment(context: TrainContext, run: RunFacts) -> Environment:
    return Environment.from_json(
        {
            **context.run_timing.environment,
            "before": list(run.before),
            "micro_batch_rows": context.loop.module.micro_batch_rows or context.step.rows,
            "shared": context.was_shared,
            "software": {**software()},
        }
    )


def _data(context: TrainContext, steps: int) -> TrainData:
    prepared, train_tokens = context.prepared, context.training_rows * context.step.sequence_length
    overlap = prepared.facts.overlap.shares() if prepared.facts else {}
    return TrainData(
        fingerprint=prepared.fingerprint,
        evaluation_fingerprint=context.evaluation_set.fingerprint,
        train_tokens=train_tokens,
        validation_tokens=len(prepared.validation),
        overlap_documents=overlap.get("overlap_documents", prepared.repeated_share),
        overlap_passages=overlap.get("overlap_passages"),
        repeated_documents=overlap.get("repeated_documents"),
        token_frequency_loss=context.baseline["loss"],
        evaluation_documents=context.documents.count,
        effective_documents=context.documents.effective,
        padding_share=context.padding_share(steps),
        epochs=steps * context.step.rows / context.training_rows,
        sources=_sources(context, context.step.tokens_of(0, steps)),
        texts=[row.to_json() for row in context.text_rows] or None,
    )


def _sources(context: TrainContext, tokens: int) -> dict[str, Plain] | None:
    """Of each source: the tokens in use, the share of an epoch that it gives, and the passes over it."""
    task = context.task
    blocks = task.blocks(context.prepared, context.config.seed) if isinstance(task, PackedText) else None
    if not isinstance(blocks, MixedBlocks):
        return None
    length, names = context.step.sequence_length, context.prepared.sources
    rows = zip(names, blocks.sources, blocks.rows, strict=True)
    return {
        name: {
            "tokens": len(source) * length,
            "share": count / len(blocks),
            "epochs": tokens * count / len(blocks) / (len(source) * length),
        }
        for name, source, count in rows
    }
