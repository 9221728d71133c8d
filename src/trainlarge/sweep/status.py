"""The state of a cell, as its ``status.json`` says."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """The states of a cell. All but ``RUNNING`` (while its lease is alive) and ``DONE`` can be claimed."""

    MISSING = "missing"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    PREEMPTED = "preempted"


ENDED = frozenset({State.DONE, State.FAILED, State.PREEMPTED})
"""How an attempt can end."""


@dataclass(frozen=True)
class Status:
    """State of a cell, with what a person wants to know about it."""

    state: State
    """Where the cell stands."""
    attempts: int = 0
    """How often it was started."""
    error: str | None = None
    """Last line of the error that ended the last attempt."""
    progress: dict[str, Any] = field(default_factory=dict)
    """``step``, ``steps``, ``loss`` (nats per token), ``tokens_per_second``, ``seconds_left``, as far as known."""
    retries: int = 0
    """How many of these attempts came after a failure."""
    updated: float = field(default_factory=time.time)
    """When this was written, in seconds since 1970."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``status.json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Status:
        """The status that ``to_json`` described."""
        return cls(**{**data, "state": State(data["state"])})
