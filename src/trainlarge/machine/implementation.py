"""How a job computes. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainlarge.config.group import Plain, as_plain
from trainlarge.config.identity import added_with, without_added


@dataclass(frozen=True)
class Implementation:
    """How a job computes: every choice made."""

    device: str
    """``cpu`` or ``cuda``."""
    device_name: str
    """The processor's name: seconds of different names are not compared."""
    precision: str
    """``fp32`` or ``bf16`` (autocast; weights, optimizer and evaluation stay fp32)."""
    attention: str
    """``eager`` or ``sdpa``."""
    forward: str
    """``fast`` or ``library``."""
    threads: int
    """CPU threads."""
    compile: str = field(default="none", metadata=added_with("none"))
    """``none``, ``inductor`` or ``graphs``."""
    strategy: str = field(default="ddp", metadata=added_with("ddp"))
    """``ddp`` or ``fsdp``: how several devices share the work."""

    def synchronize(self) -> None:
        """Wait until all that was asked of the device is done: a GPU works behind the clock."""
        if self.device == "cuda":
            # Imported here: what only reads this dataclass from a file does without torch.
            import torch

            torch.cuda.synchronize()

    def to_json(self) -> dict[str, Plain]:
        """Plain data for records and keys of the probe cache.

        A value that is the one of files older than its key is left out.
        """
        return {name: as_plain(value) for name, value in without_added(self).items()}
