"""The record of a train cell."""

from __future__ import annotations

import time
from typing import Any

from trainlarge.machine.provenance import origin, software
from trainlarge.models.counts import parameter_counts
from trainlarge.models.shape import shape_of
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.store import RECORD_SCHEMAS
from trainlarge.tasks.evaluation import perplexity
from trainlarge.training.setup import Setup

_FROM_CURVE = ("step", "tokens", "flops", "train_seconds", "model_seconds", "wall_seconds")
_LATER = "executed_flops"
"""A row of before the key existed does not know it."""


def finished_record(cell: Cell, setup: Setup, last: dict[str, Any], **run: Any) -> dict[str, Any]:
    """The result of a cell that trained to the end of its budget.

    Args:
        last: the last row of its curve.
        run: ``document_standard_error``, ``train_set_loss``, ``branch_step``, ``resumed_at``, ``before`` (see
            ``RunTiming``), ``started``, ``budget_missed``.
    """
    result = {key: last[key] for key in ("loss", "accuracy", *_FROM_CURVE)} | {_LATER: last.get(_LATER)}
    return {
        **_head(cell),
        "diverged": False,
        **result,
        "perplexity": perplexity(last["loss"]),
        **_rest(cell, setup, last, run),
    }


def diverged_record(cell: Cell, setup: Setup, last: dict[str, Any], step: int, **run: Any) -> dict[str, Any]:
    """The result of a cell whose loss stopped being a number at ``step``: a result, not a crash.

    Loss, accuracy and perplexity are null; clocks and counts are those of the last good row of the curve.
    """
    nothing = dict.fromkeys(("loss", "accuracy", "perplexity", "document_standard_error", "train_set_loss"))
    counted = {key: last.get(key, 0) for key in (*_FROM_CURVE, _LATER)}
    diverged = {"diverged": True, "diverged_at": step, "last_good_step": last.get("step", 0)}
    return {**_head(cell), **diverged, **nothing, **counted, **_rest(cell, setup, counted, run)}


def _head(cell: Cell) -> dict[str, Any]:
    return {"schema": RECORD_SCHEMAS["train"], "stage": "train", "cell": cell.id, "study": cell.config["study"]}


def _rest(cell: Cell, setup: Setup, last: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    counts, prepared = parameter_counts(shape_of(cell.config)), setup.prepared
    started, before = run.pop("started"), run.pop("before")
    train_tokens = setup.training_rows * setup.step.sequence_length
    return {
        **run,
        "step_seconds": setup.run_timing.step_seconds,
        "cpu_seconds_per_step": setup.timing.cpu_seconds(),
        "thread_share": setup.timing.thread_share(),
        "compile_seconds": setup.compiling.seconds,
        "parameters": counts.total,
        "embedding_parameters": counts.embedding,
        "non_embedding_parameters": counts.non_embedding,
        "data": {
            "fingerprint": prepared.fingerprint,
            "evaluation_fingerprint": setup.evaluation_set.fingerprint,
            "train_tokens": train_tokens,
            "validation_tokens": len(prepared.validation),
            **(prepared.facts.overlap.shares() if prepared.facts else {}),
            "token_frequency_loss": setup.baseline_loss,
            **setup.documents.facts(),
            "epochs": last["tokens"] / train_tokens,
        },
        "environment": {
            **setup.run_timing.environment,
            "before": list(before),
            "micro_batch_rows": setup.loop.module.micro_batch_rows or setup.step.rows,
            "shared": setup.was_shared,
            "software": software(),
        },
        "provenance": {**origin(run.pop("command")), "started": started, "ended": time.time()},
        "config": cell.config,
    }
