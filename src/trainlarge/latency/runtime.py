"""The interface of a runtime: what computes a model from token numbers to logits.

To add one: a ``Runtime`` in a file here, and its name in ``latency/registry.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Subject:
    """A model whose speed is measured, and the rows that it computes."""

    model: nn.Module
    """In fp32 and evaluation mode, on the device; runtimes leave it as it is."""
    tokens: Tensor
    """Token numbers [batch, length] without padding, on the device."""
    device: str
    """``cpu`` or ``cuda``."""
    threads: int
    """CPU threads."""
    features: tuple[str, ...]
    """Features of the processor (``trainlarge.machine.features``)."""
    scratch: Path
    """Folder for files that are needed while it is measured."""
    cache: Path
    """Folder in which compiled code is kept."""
    checkpoint: nn.Module | None = None
    """The model before compression, where this one has other shapes."""

    @property
    def linears(self) -> dict[str, nn.Linear]:
        """Name -> linear layer."""
        return {name: module for name, module in self.model.named_modules() if isinstance(module, nn.Linear)}


class Logits(nn.Module):
    """The whole forward pass of a model of the library, ``[batch, length] -> [batch, ..., outputs]``.

    Args:
        model: gives outputs with ``logits``.
        with_mask: say that every token counts. Decoders look for the ends of packed rows where it is not said.
    """

    def __init__(self, model: nn.Module, with_mask: bool = False) -> None:
        super().__init__()
        self.model, self.with_mask = model, with_mask

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits of token numbers [batch, length]."""
        mask = {"attention_mask": torch.ones_like(tokens)} if self.with_mask else {}
        logits: Tensor = self.model(input_ids=tokens, **mask).logits
        return logits


@dataclass(frozen=True, eq=False)
class Ready:
    """A model that a runtime is ready to compute."""

    logits: Callable[[], Tensor]
    """A pass over the rows of the subject."""
    model_bytes: int
    """Memory of the weights."""
    kernel: Callable[[], str]
    """Names the operation that takes most of a pass, with its share."""


@dataclass(frozen=True)
class Runtime:
    """What computes a model."""

    name: str
    """What it is called in rows and on the command line."""
    does: str
    """What it is, in words."""
    make: Callable[[Subject], Ready]
    """Makes a model ready. May raise whatever its library raises."""
    tolerance: float
    """Norm of the difference from the dense logits over their norm, beyond which it computes another model."""
    packages: tuple[str, ...] = ()
    """Packages that it needs beside torch, by the names under which they are installed."""
    is_slow_to_make: bool = False
    """Whether making a model ready takes tens of seconds for each shape: it then runs only where it is asked for."""
    why_not: Callable[[Subject], str | None] = lambda _subject: None
    """Why it cannot compute a model here; None where nothing speaks against it."""
    remark: Callable[[tuple[str, ...]], str | None] = lambda _features: None
    """What a processor with these features makes of it; None where nothing needs to be said."""
