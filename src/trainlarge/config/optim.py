"""The group ``optim``: AdamW and its rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainlarge.config.group import Group
from trainlarge.config.identity import added_with
from trainlarge.config.reads import read_with

LrRule = Literal["inverse_sqrt_width", "inverse_width", "constant", "mup"]
MOST_BATCH = 10**10
"""Tokens of a step."""
PEAK_FOLLOWS_FROM = frozenset(
    f"optim.{name}" for name in ("lr", "lr_rule", "base_width", "batch", "batch_rule", "base_batch", "batch_lr")
)
"""Keys from which ``optim.peak_lr`` follows, where it is not given."""
BatchRule = Literal["constant", "sqrt", "linear", "table"]


@dataclass(frozen=True)
class OptimConfig(Group):
    """AdamW and its rates."""

    key: ClassVar[str] = "optim"

    name: Literal["adamw"] = "adamw"
    """``adamw``."""
    lr: float = field(default=3e-3, metadata=read_with(batch_rule=("constant", "sqrt", "linear")))
    """Base learning rate: the peak rate of a model of width ``base_width``."""
    lr_rule: LrRule = "inverse_sqrt_width"
    """How the rate follows from the width: ``constant`` (as published), ``inverse_sqrt_width``, ``inverse_width``, or
    ``mup`` (tensor by tensor, with initial values, output and attention scores to match)."""
    base_width: int = field(default=128, metadata=read_with(lr_rule=("inverse_sqrt_width", "inverse_width", "mup")))
    """Width at which ``lr`` holds."""
    peak_lr: float | None = None
    """Peak learning rate of this cell; null: from ``lr`` by ``lr_rule``, filled in when the cell is frozen."""
    batch: int = 2048
    """Tokens per step: the effective batch, a multiple of ``data.sequence_length``."""
    batch_rule: BatchRule = field(default="constant", metadata=added_with("constant"))
    """How the rate follows from the batch: ``constant``, ``sqrt``, ``linear``, or ``table`` (of ``batch_lr``)."""
    base_batch: int = field(default=2048, metadata={**added_with(2048), **read_with(batch_rule=("sqrt", "linear"))})
    """Batch at which ``lr`` holds, in tokens, for ``sqrt`` and ``linear``."""
    batch_lr: tuple[tuple[int | float, int | float], ...] = field(
        default=(), metadata={**added_with(()), **read_with(batch_rule="table")}
    )
    """Pairs of a batch in tokens and the base rate that takes the place of ``lr`` there, for ``table``."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.98
    """Decay of the second moment."""
    eps: float = 1e-6
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices; vectors have none."""
    clip: float = 1.0
    """Largest gradient norm; 0 switches clipping off."""

    @property
    def rate(self) -> float:
        """The peak learning rate of a frozen cell. Raises ValueError before it is filled in."""
        if self.peak_lr is None:
            raise ValueError("optim.peak_lr is filled in when the cell is frozen")
        return self.peak_lr

    def check(self) -> None:
        for name in ("lr", "base_width", "base_batch", "eps"):
            self.require(name, getattr(self, name) > 0, "a positive number")
        for name in ("weight_decay", "clip"):
            self.require(name, getattr(self, name) >= 0, "0 or a positive number")
        for name in ("beta1", "beta2"):
            self.require(name, 0 <= getattr(self, name) < 1, "a number in [0, 1)")
        self.require("batch", 0 < self.batch <= MOST_BATCH, f"a whole number of tokens from 1 to {MOST_BATCH:,}")
        is_table = all(part > 0 for pair in self.batch_lr for part in pair)
        self.require("batch_lr", is_table, "pairs of a batch in tokens and its rate: [[2048, 3e-3], [8192, 6e-3]]")
        allowed = "a positive number, or null for that of the rule"
        self.require("peak_lr", self.peak_lr is None or self.peak_lr > 0, allowed)
