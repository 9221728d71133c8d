"""The group ``arch``: the shape of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trainlarge.config.group import Group

MOST_WIDTH = 262_144
"""A layer of this width has 10^11 parameters and more."""
MOST_LAYERS = 10_000
MOST_RATIO = 1_000


@dataclass(frozen=True)
class ArchConfig(Group):
    """The shape of the model."""

    key: ClassVar[str] = "arch"

    name: str = "modern"
    """``modern`` (ModernBERT: rotary, pre-norm, gated FFN), ``roberta`` (with pre-norm, as in the paper), ``bert``
    (post-norm) or ``llama`` (a causal decoder: rotary, pre-norm, gated FFN). ``library`` stands for any other
    architecture, and is filled in where a Hugging Face folder brings one."""
    width: int = 128
    """Hidden size."""
    depth: int = 2
    """Number of layers."""
    heads: int | None = None
    """Attention heads; null: one for every 64 of width, at least two."""
    ffn_ratio: float = 2.0
    """Inner width of the feed-forward network, in widths."""
    positions: int | None = None
    """Positions the model can address; null: as many as a row needs."""
    dropout: float = 0.0
    """Dropout of hidden states and attention, in [0, 1)."""
    tied: bool = True
    """Whether input and output embedding are one matrix; for tasks whose models predict tokens."""
    init_std: float | None = None
    """Standard deviation of the initial weights; null: 0.68 / sqrt(width)."""

    @property
    def initial_std(self) -> float:
        """The standard deviation of the initial weights of a frozen cell. Raises ValueError before it is filled in."""
        if self.init_std is None:
            raise ValueError("arch.init_std is filled in when the cell is frozen")
        return self.init_std

    def check(self) -> None:
        self.require_whole(1, "width", most=MOST_WIDTH)
        self.require_whole(1, "depth", most=MOST_LAYERS)
        for name in ("heads", "positions"):
            if getattr(self, name) is not None:
                self.require_whole(1, name, most=2**31 - 1)
        self.require("ffn_ratio", 0 < self.ffn_ratio <= MOST_RATIO, f"a positive number of at most {MOST_RATIO:,}")
        allowed = "a positive number, or null for that of the rule"
        self.require("init_std", self.init_std is None or self.init_std > 0, allowed)
