"""Measures one model by every runtime that is asked for: checked against dense, then timed in turns."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trainlarge.latency.packages import missing_packages, versions_of
from trainlarge.latency.runtime import Ready, Runtime, Subject
from trainlarge.latency.torch_module import held_bytes
from trainlarge.latency.torch_runtimes import CHECKPOINT, DENSE
from trainlarge.latency.turns import in_turns, median_interval, passes_per_round, quartiles, ratios
from trainlarge.machine.device import device_name, is_shared
from trainlarge.machine.energy import PackageEnergy
from trainlarge.machine.memory import free_memory
from trainlarge.machine.peak_memory import working_memory
from trainlarge.sweep.latencies import Latency
from trainlarge.sweep.store import CellFolder

log = logging.getLogger(__name__)

COPIES = 2
"""Copies of the weights that making a runtime ready may take; with less free memory it is left out."""


@dataclass(frozen=True, eq=False)
class Started:
    """A runtime that computes the model as dense does, within its tolerance."""

    ready: Ready
    working_bytes: int | None
    logit_error: float
    same_predictions: float


Outcome = Started | str
"""What became of a runtime: it is started, or why it is not."""


def measured(
    folder: CellFolder, subject: Subject, runtimes: Sequence[Runtime], rounds: int, energy: PackageEnergy | str
) -> list[Latency]:
    """A row for each runtime.

    Args:
        folder: the cell whose model it is.
        subject: the model and its rows.
        runtimes: those that are asked for; dense is computed in any case.
        rounds: in which they take turns.
        energy: what reads it, or why nothing does.
    """
    wanted = list({runtime.name: runtime for runtime in (DENSE, *runtimes)}.values())
    try:
        outcomes = _started(subject, wanted)
        empty = [_row(folder, subject, runtime, rounds) for runtime in wanted]
        filled = _with_numbers(subject, empty, outcomes, rounds)
        return [_with_energy(subject, row, outcomes[row.runtime], energy) for row in filled]
    finally:
        if any(runtime.is_slow_to_make for runtime in wanted):
            # Compiled code of one model would be looked at before each pass of the next.
            torch.compiler.reset()


def _started(subject: Subject, runtimes: Sequence[Runtime]) -> dict[str, Outcome]:
    dense = DENSE.make(subject).logits().float()
    return {runtime.name: _start(subject, runtime, dense) for runtime in runtimes}


def _start(subject: Subject, runtime: Runtime, dense: Tensor) -> Outcome:
    """Make a runtime ready and compare its logits with those of dense."""
    is_reference = runtime in (DENSE, CHECKPOINT)
    reason = missing_packages(runtime.packages) or runtime.why_not(subject)
    if reason := reason or (None if is_reference else _why_no_memory(subject)):
        return reason
    try:
        ready = runtime.make(subject)
        logits: list[Tensor] = []
        working = working_memory(lambda: logits.append(ready.logits()), subject.device)
    except Exception as error:  # each library has its own errors
        log.debug("%s cannot compute the model", runtime.name, exc_info=True)
        return f"{runtime.name} cannot compute this model: {_first_line(error)}"
    if is_reference:
        return Started(ready, working, 0.0, 1.0)
    return _checked(runtime, Started(ready, working, *_compared(logits[0].float().to(dense.device), dense)))


def _checked(runtime: Runtime, started: Started) -> Outcome:
    # A comparison with a number that is none is false.
    if started.logit_error <= runtime.tolerance:
        return started
    return (
        f"its logits differ from those of dense by {started.logit_error:.2g} of their norm, above {runtime.tolerance:g}"
    )


def _compared(logits: Tensor, dense: Tensor) -> tuple[float, float]:
    """Relative difference of logits [..., outputs], and the share whose largest output is the same."""
    error = float((logits - dense).norm() / dense.norm().clamp(min=torch.finfo(torch.float32).tiny))
    same = float((logits.argmax(-1) == dense.argmax(-1)).float().mean())
    return error, same


def _why_no_memory(subject: Subject) -> str | None:
    needed = COPIES * held_bytes(subject.model)
    free = torch.cuda.mem_get_info()[0] if subject.device == "cuda" else free_memory()
    if needed <= free:
        return None
    return f"{free / 2**30:.1f} GiB of memory are free, and another form of the weights may take {needed / 2**30:.1f}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _row(folder: CellFolder, subject: Subject, runtime: Runtime, rounds: int) -> Latency:
    batch, length = subject.tokens.shape
    return Latency(
        cell=folder.id,
        stage=folder.stage,
        runtime=runtime.name,
        batch=batch,
        length=length,
        device=subject.device,
        device_name=device_name(subject.device),
        threads=subject.threads,
        versions=versions_of(runtime.packages),
        features=" ".join(subject.features),
        shared=is_shared(subject.threads),
        measured=time.time(),
        rounds=rounds,
        remark=runtime.remark(subject.features),
        attention=getattr(getattr(subject.model, "config", None), "_attn_implementation", None),
    )


def _with_numbers(
    subject: Subject, rows: Sequence[Latency], outcomes: Mapping[str, Outcome], rounds: int
) -> list[Latency]:
    started = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Started)}
    runs = {name: outcome.ready.logits for name, outcome in started.items()}
    passes = {name: passes_per_round(run, subject.threads) for name, run in runs.items()}
    taken = in_turns(runs, passes, rounds, subject.threads)
    flops = forward_flops(subject)
    return [
        _filled(row, outcome, taken, flops)
        if isinstance(outcome := outcomes[row.runtime], Started)
        else replace(row, why_empty=outcome)
        for row in rows
    ]


def _filled(row: Latency, started: Started, taken: Mapping[str, Sequence[float]], flops: int) -> Latency:
    own, dense, checkpoint = (taken.get(name) for name in (row.runtime, DENSE.name, CHECKPOINT.name))
    if own is None or dense is None:
        raise LookupError(f"{row.runtime} or {DENSE.name} was not timed")
    seconds, over_dense = quartiles(own), ratios(dense, own)
    over_checkpoint = ratios(checkpoint, own) if checkpoint else None
    return replace(
        row,
        kernel=started.ready.kernel(),
        seconds=seconds.median,
        seconds_low=seconds.low,
        seconds_high=seconds.high,
        speedup=over_dense.median,
        speedup_low=over_dense.low,
        speedup_high=over_dense.high,
        checkpoint_speedup=over_checkpoint.median if over_checkpoint else None,
        checkpoint_speedup_low=over_checkpoint.low if over_checkpoint else None,
        checkpoint_speedup_high=over_checkpoint.high if over_checkpoint else None,
        model_bytes=started.ready.model_bytes,
        working_bytes=started.working_bytes,
        flops=flops,
        logit_error=started.logit_error,
        same_predictions=started.same_predictions,
    )


def _with_energy(subject: Subject, row: Latency, outcome: Outcome, energy: PackageEnergy | str) -> Latency:
    if isinstance(outcome, str):
        return row
    if subject.device != "cpu":
        return replace(row, why_no_joules="energy is read of CPUs alone")
    if isinstance(energy, str):
        return replace(row, why_no_joules=energy)
    run = {row.runtime: outcome.ready.logits}
    passes = {row.runtime: passes_per_round(outcome.ready.logits, subject.threads)}
    joules = in_turns(run, passes, row.rounds, subject.threads, clock=energy)[row.runtime]
    return replace(row, joules=median_interval(joules).median)


def forward_flops(subject: Subject) -> int:
    """FLOPs of a pass of the dense model: products of matrices."""
    with FlopCounterMode(display=False) as counter:
        DENSE.make(subject).logits()
    return int(counter.get_total_flops())
