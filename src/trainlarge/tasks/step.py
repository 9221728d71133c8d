"""What an optimizer step takes in, and how many of them a budget buys. No torch: budgets are counted before launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache, partial
from typing import Literal

import numpy as np

from trainlarge.config.budget import EPOCHS, FLOPS, SECONDS, STEPS, TOKENS, Budget
from trainlarge.config.group import Plain
from trainlarge.config.impl import ImplConfig
from trainlarge.config.schema import TrainConfig
from trainlarge.config.task import TaskConfig
from trainlarge.data.arrays import Integers
from trainlarge.errors import UserError
from trainlarge.models.family import Head
from trainlarge.models.flops import executed_training_flops, training_flops
from trainlarge.models.library import has_eager_alone
from trainlarge.models.shape import Shape, head_of, shape_of

MOST_STEPS = 10**12
MOST_UNEVEN_STEPS = 10**7
"""Steps whose lengths are looked at one by one to find where a budget ends."""
LOOKED_AT_ONCE = 1024


@dataclass(frozen=True)
class Step:
    """What one optimizer step takes in."""

    rows: int
    """Rows of the effective batch."""
    sequence_length: int
    """Tokens in a row."""
    predictions: int
    """Predictions per row."""
    flops: int
    """FLOPs of forward and backward, those of the architecture."""
    executed_flops: int
    """Those of them that are computed: the fast forward pass leaves some out."""

    @property
    def tokens(self) -> int:
        """Tokens of the effective batch; of steps of several lengths, those of the longest."""
        return self.rows * self.sequence_length

    def tokens_of(self, start: int, stop: int) -> int:
        """Tokens that steps ``start`` to ``stop - 1`` compute, padding included."""
        return (stop - start) * self.tokens

    def flops_of(self, start: int, stop: int) -> int:
        """FLOPs of these steps."""
        return (stop - start) * self.flops

    def executed_flops_of(self, start: int, stop: int) -> int:
        """Those of them that are computed."""
        return (stop - start) * self.executed_flops


RowFlops = Callable[[int], tuple[int, int]]
"""Tokens in a row -> FLOPs of the row: those of the architecture, and those that are computed."""


@dataclass(frozen=True)
class UnevenStep(Step):
    """What steps take in whose rows are as long as the longest of their batch; the fields are of a full row."""

    lengths: Callable[[int, int], Integers]
    """Tokens in a row of the steps ``start`` to ``stop - 1``, [steps]."""
    row_flops: RowFlops

    def tokens_of(self, start: int, stop: int) -> int:
        """Tokens that steps ``start`` to ``stop - 1`` compute, padding included."""
        return self.rows * sum(length * steps for length, steps in self._counted(start, stop))

    def flops_of(self, start: int, stop: int) -> int:
        """FLOPs of these steps."""
        return self.rows * sum(self.row_flops(length)[0] * steps for length, steps in self._counted(start, stop))

    def executed_flops_of(self, start: int, stop: int) -> int:
        """Those of them that are computed."""
        return self.rows * sum(self.row_flops(length)[1] * steps for length, steps in self._counted(start, stop))

    def steps_to(self, budget: Budget, key: str = "budget") -> int:
        """Steps up to the first one with which a budget in tokens or FLOPs is reached.

        Raises:
            UserError: they are more than ``MOST_UNEVEN_STEPS``.
        """
        left, whole = int(budget.value), self.flops if budget.unit == FLOPS else self.tokens
        if left > MOST_UNEVEN_STEPS * whole:
            raise UserError(key, budget.in_words, f"at most {MOST_UNEVEN_STEPS:,} steps with task.batches=bucketed")
        size_of = cache(partial(self._size, unit=budget.unit))
        for start in range(0, MOST_UNEVEN_STEPS, LOOKED_AT_ONCE):
            for place, length in enumerate(self.lengths(start, start + LOOKED_AT_ONCE).tolist()):
                left -= size_of(length)
                if left <= 0:
                    return start + place + 1
        raise UserError(key, budget.in_words, f"at most {MOST_UNEVEN_STEPS:,} steps with task.batches=bucketed")

    def _size(self, length: int, unit: str) -> int:
        return self.rows * (length if unit == TOKENS else self.row_flops(length)[0])

    def _counted(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Each length with the number of its steps, in Python's whole numbers: FLOPs may be beyond 64 bits."""
        counts = np.bincount(self.lengths(start, stop))
        for length in np.flatnonzero(counts).tolist():
            yield length, int(counts[length])


def step_of(config: TrainConfig, pooling: str | None = None) -> Step:
    """What a step of a train cell takes in.

    Args:
        config: of the cell.
        pooling: how its model pools rows, where ``task.pooling`` leaves that to its checkpoint. ``executed_flops``
            alone depend on it.

    Raises:
        UserError: when ``optim.batch`` is not a multiple of ``data.sequence_length``.
    """
    length, batch = config.data.sequence_length, config.optim.batch
    if batch < length or batch % length:
        raise UserError(
            "optim.batch", batch, f"a multiple of data.sequence_length={length}: it counts the tokens of a step"
        )
    rows, (flops, executed) = batch // length, row_flops_of(config, pooling)(length)
    return Step(rows, length, config.task.predictions(length), rows * flops, rows * executed)


def row_flops_of(config: TrainConfig, pooling: str | None = None) -> RowFlops:
    """FLOPs of a row of a train cell by its tokens; ``pooling`` as for ``step_of``."""
    # Where all tokens of the last layer are read, the fast pass leaves nothing out.
    shape, head, forward = shape_of(config), head_of(config), forward_in(config)
    forward = "library" if (config.task.row_pooling or pooling) == "mean" else forward
    return lambda length: _row_flops(shape, head, length, config.task.predictions(length), forward)


def uneven(
    step: Step, config: TrainConfig, lengths: Callable[[int, int], Integers], pooling: str | None = None
) -> UnevenStep:
    """The step of a train cell whose rows have those lengths, step by step; ``pooling`` as for ``step_of``."""
    return UnevenStep(
        **{item.name: getattr(step, item.name) for item in fields(Step)},
        lengths=lengths,
        row_flops=row_flops_of(config, pooling),
    )


def timed_step(config: TrainConfig, jobs_per_device: int = 1) -> dict[str, Plain]:
    """What a step computes, as plain data: a part of the key under which its time is kept below ``probes/``.

    A step on several devices, or next to other jobs of ours, has another key than one alone.
    """
    step, impl = step_of(config), config.impl
    # "masked" are the predictions: files of before there was another task say so.
    sizes: dict[str, Plain] = {
        "rows": step.rows,
        "sequence_length": step.sequence_length,
        "masked": step.predictions,
    }
    if config.task.name != TaskConfig.name:
        sizes["task"] = config.task.name
    if config.task.row_pooling is not None:
        sizes["pooling"] = config.task.row_pooling
    if not config.task.has_even_steps:
        # Their time depends on the lengths of the rows.
        sizes["rows_of"] = config.data.known_fingerprint
    arch = {name: value for name, value in config.arch.plain.items() if name != "init_std"}
    key: dict[str, Plain] = {"arch": arch, "vocab_size": config.data.vocab_size, "step": sizes}
    if impl.devices > 1:
        key["devices"] = impl.devices
    if jobs_per_device > 1:
        key["per_device"] = jobs_per_device
    if impl.micro_batch_rows:
        key["micro_batch_rows"] = impl.micro_batch_rows
    return key


def impl_in(config: TrainConfig) -> ImplConfig:
    """The group ``impl`` of a train cell, with what its architecture decides."""
    impl, shape = replace(config.impl, forward=forward_in(config)), shape_of(config)
    if impl.attention == "auto" and shape.is_library and has_eager_alone(shape):
        return replace(impl, attention="eager")
    return impl


def forward_in(config: TrainConfig) -> Literal["fast", "library"]:
    """The forward pass of a train cell, ``fast`` or ``library``: fast where the model has such a pass for its head."""
    has_fast = shape_of(config).family.head(head_of(config)).fast is not None
    return config.impl.chosen_forward if has_fast else "library"


@lru_cache(maxsize=1024)
def _row_flops(shape: Shape, head: Head, length: int, predictions: int, forward: str) -> tuple[int, int]:
    """FLOPs of forward and backward over one row: those of the architecture, and those that are computed."""
    whole = training_flops(shape, length, predictions, head)
    return whole, executed_training_flops(shape, length, predictions, forward, head)


@dataclass(frozen=True)
class Pace:
    """What is not known by formula, and turns budgets in seconds and in epochs into steps."""

    step_seconds: float | None = None
    """Steady-state step time."""
    epoch_rows: int | None = None
    """Rows of the training data in use."""

    def knows(self, budget: Budget) -> bool:
        """Whether it turns ``budget`` into steps."""
        needed = {SECONDS: self.step_seconds, EPOCHS: self.epoch_rows}
        return budget.unit not in needed or needed[budget.unit] is not None


UNKNOWN_PACE = Pace()
"""Before any data is prepared or any step is timed."""


def steps_in(budget: Budget, step: Step, pace: Pace = UNKNOWN_PACE, key: str = "budget") -> int:
    """Whole steps that fit in ``budget``; of uneven ones, those up to the first with which tokens or FLOPs reach it.

    Raises:
        UserError: when not even one fits, or ``pace`` does not know the budget.
    """
    if not pace.knows(budget):
        raise UserError(key, budget, "a budget in FLOPs, tokens or steps before a step is timed and data is prepared")
    if isinstance(step, UnevenStep) and budget.unit in (FLOPS, TOKENS):
        return step.steps_to(budget, key)
    sizes = {
        FLOPS: step.flops,
        TOKENS: step.tokens,
        STEPS: 1,
        SECONDS: pace.step_seconds or 0.0,
        EPOCHS: step.rows / (pace.epoch_rows or 1),
    }
    size = sizes[budget.unit]
    # A budget that was made as steps times size must give those steps back.
    steps = int(budget.value / size * (1 + 1e-9))
    if steps < 1:
        least = Budget(float(f"{size:.4g}"), budget.unit)
        raise UserError(key, budget.in_words, f"at least one step, which is {least.in_words}")
    if steps > MOST_STEPS:
        raise UserError(key, budget.in_words, f"at most {MOST_STEPS:,} steps")
    return steps
