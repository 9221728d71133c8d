"""Budgets to steps, and what a step is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trainlarge.config.budget import FLOPS, SECONDS, STEPS, TOKENS, Budget
from trainlarge.config.impl import forward_of
from trainlarge.data.masked_count import masked_count
from trainlarge.errors import UserError
from trainlarge.models.flops import executed_training_flops, training_flops
from trainlarge.models.shape import Shape


@dataclass(frozen=True)
class Step:
    """What one optimizer step takes in."""

    rows: int
    """Rows of the effective batch."""
    sequence_length: int
    """Tokens in a row."""
    masked: int
    """Masked positions in a row."""
    flops: int
    """FLOPs of forward and backward, those of the architecture."""
    executed_flops: int
    """Those of them that are computed: the fast forward pass leaves some out."""

    @property
    def tokens(self) -> int:
        """Tokens of the effective batch."""
        return self.rows * self.sequence_length


def shape_of(config: dict[str, Any]) -> Shape:
    """The model shape of a train cell."""
    arch = {key: value for key, value in config["arch"].items() if key != "init_std"}
    return _shape(config["data"]["vocab_size"], **arch)


# Asked for several times of each of ten thousand cells, which have few shapes. Typed: 64.0 and True are no widths.
@lru_cache(maxsize=1024, typed=True)
def _shape(vocab_size: int, **arch: Any) -> Shape:
    return Shape.from_config(arch, vocab_size)


def step_of(config: dict[str, Any]) -> Step:
    """What a step of a train cell takes in.

    Raises:
        UserError: when ``optim.batch`` is not a multiple of ``data.sequence_length``.
    """
    length, batch = config["data"]["sequence_length"], config["optim"]["batch"]
    if batch < length or batch % length:
        raise UserError("optim.batch", batch, f"tokens in a step: a multiple of data.sequence_length={length}")
    masked = masked_count(config["task"]["mask_rate"], length)
    return _step(shape_of(config), batch // length, length, masked, forward_of(config["impl"]))


@lru_cache(maxsize=1024)
def _step(shape: Shape, rows: int, length: int, masked: int, forward: str) -> Step:
    executed = executed_training_flops(shape, length, masked, forward)
    return Step(rows, length, masked, rows * training_flops(shape, length, masked), rows * executed)


def steps_in(budget: Budget, step: Step, step_seconds: float | None, key: str = "budget") -> int:
    """Whole steps that fit in ``budget``.

    Args:
        step_seconds: steady-state step time, needed for a budget in seconds.

    Raises:
        UserError: when not even one fits.
    """
    sizes = {FLOPS: step.flops, TOKENS: step.tokens, STEPS: 1, SECONDS: step_seconds}
    size = sizes[budget.unit]
    if size is None:
        raise UserError(key, budget, "a budget in FLOPs, tokens or steps where no step has been timed")
    # A budget that was made as steps times size must give those steps back.
    steps = int(budget.value / size * (1 + 1e-9))
    if steps < 1:
        raise UserError(key, budget, f"at least one step, which is {size:.4g} {budget.unit}")
    return steps
