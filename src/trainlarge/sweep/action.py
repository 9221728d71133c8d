"""What a command does with the cells that its configuration stands for: run them, or only tell what running would mean.

Hydra makes the sweeper itself and gives its result to nobody, so the command cannot hand the action to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Action = Callable[[str, list[dict[str, Any]]], Any]
"""Is given the stage and one configuration for each cell."""

_CHOSEN: ContextVar[Action] = ContextVar("action")


@contextmanager
def acting(action: Action) -> Iterator[None]:
    """Have the commands in this block hand their cells to ``action``."""
    token = _CHOSEN.set(action)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def chosen_action(default: Action) -> Action:
    """The action of the command that is running; ``default`` where there is none."""
    return _CHOSEN.get(default)
