"""The state of a cell, as its ``status.json`` says."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from trainlarge.config import typed_json
from trainlarge.config.group import Plain


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
class CellProgress:
    """How far the job of a running cell is, as far as known: false where nothing is."""

    step: int | None = None
    """Steps that are done: of training, or recipes of a compress job."""
    steps: int | None = None
    """Steps in all."""
    loss: float | None = None
    """Newest evaluation loss, in nats per prediction."""
    tokens_per_second: float | None = None
    """Speed of training."""
    seconds_left: float | None = None
    """Time until the job ends."""

    def __bool__(self) -> bool:
        return self != NO_PROGRESS

    def to_json(self) -> dict[str, Plain]:
        """Plain data: what is known."""
        return {name: value for name, value in typed_json.plain(self).items() if value is not None}


NO_PROGRESS = CellProgress()


@dataclass(frozen=True)
class Status:
    """State of a cell, with what a person wants to know about it."""

    state: State
    """Where the cell stands."""
    attempts: int = 0
    """How often it was started."""
    error: str | None = None
    """What the error that ended the last attempt says, on one line."""
    progress: CellProgress = NO_PROGRESS
    """How far it is."""
    retries: int = 0
    """How many of these attempts came after a failure."""
    updated: float = field(default_factory=time.time)
    """When this was written, in seconds since 1970; of a running cell, when its job last showed that it works."""

    def to_json(self) -> dict[str, Plain]:
        """Plain data for ``status.json``."""
        return typed_json.plain(self) | {"progress": self.progress.to_json()}

    @classmethod
    def from_json(cls, data: Plain) -> Status:
        """The status that ``to_json`` described.

        Raises:
            ValueError: for other data.
        """
        if isinstance(data, dict) and data.get("progress") == {}:
            # Of nearly all of ten thousand cells nothing is known: they share one object.
            data = dict(data)
            del data["progress"]
        return typed_json.read(cls, data)
