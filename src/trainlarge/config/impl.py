"""The group ``impl``: how cells are computed, such as device, precision and threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from trainlarge.config.group import Group
from trainlarge.config.identity import added_with

MOST_THREADS = 10_000
MOST_DEVICES = 10_000


@dataclass(frozen=True)
class ImplConfig(Group):
    """How it is computed (not identity)."""

    key: ClassVar[str] = "impl"

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto`` (bf16 where a short measurement, kept with the study, finds its products faster; fp32 where the hardware
    has none), ``fp32`` or ``bf16``. Evaluation is always fp32."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """``auto`` (plain products on CPU, SDPA on CUDA), ``eager`` or ``sdpa``."""
    forward: Literal["auto", "fast", "library"] = "auto"
    """``fast`` (our forward pass over the library's parameters), ``library``, or ``auto``: ``fast`` where
    the architecture has such a pass, but with ``strategy=fsdp``."""
    compile: Literal["none", "inductor", "graphs"] = field(default="none", metadata=added_with("none"))
    """torch.compile of the training loss: ``none``, ``inductor``, or ``graphs`` (with CUDA graphs, for small models
    on a GPU). Its seconds are the column ``compile_seconds``. Evaluation is never compiled."""
    threads: int = 0
    """CPU threads per job; 0: the cores divided by ``workers``."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Lightning strategy of several devices: ``auto`` or ``ddp``, which are the same (a copy of the model on each), or
    ``fsdp``: each device keeps its share of weights, gradients and optimizer state, for models too large for one."""
    devices: int = 1
    """Devices per job, which sees its own only: GPUs of one machine, or processes on the CPU. Each takes an equal share
    of the batch."""
    micro_batch_rows: int = 0
    """Rows that go through the model at once; 0: as many of the batch as fit in the memory, on the CPU measured before
    the first step, on a GPU (one alone) found by halving where memory runs out."""
    save_seconds: float = 300.0
    """Time between two saved states, from which a stopped run resumes."""

    @property
    def chosen_strategy(self) -> Literal["ddp", "fsdp"]:
        """The strategy, with ``auto`` resolved."""
        return "ddp" if self.strategy == "auto" else self.strategy

    @property
    def chosen_forward(self) -> Literal["fast", "library"]:
        """The forward pass, with ``auto`` resolved."""
        if self.forward != "auto":
            return self.forward
        # The fast path reads weights behind the back of the modules, which gather them when they are called.
        return "library" if self.chosen_strategy == "fsdp" else "fast"

    def check(self) -> None:
        self.require_least(0, "micro_batch_rows", "save_seconds")
        self.require_whole(0, "threads", most=MOST_THREADS)
        self.require_whole(1, "devices", most=MOST_DEVICES)
        is_alone = self.compile == "none" or self.devices == 1
        self.require("compile", is_alone, f"none with impl.devices={self.devices}")
        is_whole = self.compile != "graphs" or not self.micro_batch_rows
        allowed = "none or inductor with micro-batches: each run overwrites the gradients before it"
        self.require("compile", is_whole, allowed)
        if self.strategy == "fsdp":
            self.require("strategy", self.devices > 1, "auto with impl.devices=1: fsdp divides a model between devices")
            allowed = "auto or library with impl.strategy=fsdp, which gathers whole layers"
            self.require("forward", self.forward != "fast", allowed)
