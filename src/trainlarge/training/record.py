"""The record of a train cell."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from trainlarge.config.plain import to_plain
from trainlarge.machine.provenance import origin, software
from trainlarge.models.counts import parameter_counts
from trainlarge.models.shape import head_of, shape_of
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.records import RECORD_SCHEMAS, Clocks, Environment, Provenance, TrainData, TrainRecord, meanings
from trainlarge.tasks.evaluation import perplexity
from trainlarge.training.context import TrainContext


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a record says of the run, apart from its curve; the fields of ``TrainRecord`` say what each means."""

    started: float
    """When the job started, in seconds since 1970."""
    command: str | None
    """The command that runs the cell; None where Python code does."""
    before: tuple[dict[str, Any], ...]
    """How earlier steps were computed: see ``RunTiming``."""
    branch_step: int | None
    resumed_at: list[int]
    budget_missed: float | None
    train_set_loss: float | None = None
    document_standard_error: float | None = None


def finished_record(cell: Cell, context: TrainContext, last: dict[str, Any], run: RunFacts) -> TrainRecord:
    """The result of a cell that trained to the end of its budget.

    Args:
        cell: the cell.
        context: what it was trained with.
        last: the last row of its curve.
        run: what else is known of the run.
    """
    return _record(cell, context, last, run, diverged=False, perplexity=perplexity(last["loss"]))


def diverged_record(cell: Cell, context: TrainContext, last: dict[str, Any], step: int, run: RunFacts) -> TrainRecord:
    """The result of a cell whose loss stopped being a number at ``step``: a result, not a crash.

    Scores are null; clocks and counts are those of the last good row of the curve, 0 where there is none.
    """
    clocks = dict.fromkeys(_CLOCKS, 0) | {name: last[name] for name in _CLOCKS if name in last}
    return _record(cell, context, clocks, run, diverged=True, diverged_at=step, last_good_step=clocks["step"])


_CLOCKS = tuple(meanings(Clocks))


def _record(cell: Cell, context: TrainContext, last: dict[str, Any], run: RunFacts, **outcome: Any) -> TrainRecord:
    counts = parameter_counts(shape_of(cell.as_train), head_of(cell.as_train))
    clocks: dict[str, Any] = {name: last.get(name) for name in _CLOCKS}
    return TrainRecord(
        schema=RECORD_SCHEMAS["train"],
        stage="train",
        cell=cell.id,
        study=cell.config.study,
        **clocks,
        scores={name: last.get(name) for name in cell.as_train.task.metrics},
        **outcome,
        document_standard_error=run.document_standard_error,
        train_set_loss=run.train_set_loss,
        branch_step=run.branch_step,
        resumed_at=run.resumed_at,
        budget_missed=run.budget_missed,
        step_seconds=context.run_timing.step_seconds,
        cpu_seconds_per_step=context.timing.cpu_seconds(),
        thread_share=context.timing.thread_share(),
        compile_seconds=context.compiling.seconds,
        parameters=counts.total,
        embedding_parameters=counts.embedding,
        non_embedding_parameters=counts.non_embedding,
        data=_data(context, last["tokens"]),
        environment=Environment(
            **context.run_timing.environment,
            before=list(run.before),
            micro_batch_rows=context.loop.module.micro_batch_rows or context.step.rows,
            shared=context.was_shared,
            software=software(),
        ),
        provenance=Provenance(**origin(run.command), started=run.started, ended=time.time()),
        config=to_plain(cell.config),
    )


def _data(context: TrainContext, tokens: int) -> TrainData:
    prepared, train_tokens = context.prepared, context.training_rows * context.step.sequence_length
    overlap: dict[str, Any] = prepared.facts.overlap.shares() if prepared.facts else {}
    return TrainData(
        fingerprint=prepared.fingerprint,
        evaluation_fingerprint=context.evaluation_set.fingerprint,
        train_tokens=train_tokens,
        validation_tokens=len(prepared.validation),
        **overlap,
        token_frequency_loss=context.baseline_loss,
        **context.documents.facts(),
        epochs=tokens / train_tokens,
    )
