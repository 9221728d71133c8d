"""Signals go to the job, not to Lightning, which would leave the step without a saved state."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as lightning


def leave_signals_to_the_job(trainer: lightning.Trainer) -> None:
    """Keep the trainer from setting handlers: the one for SIGTERM raises ``SIGTERMException`` between two steps.

    It is not enough to take SIGTERM back when training starts, and to block it until then: blocked in one thread, a
    signal is given to another one, such as that of the heartbeat, and Python calls the handler all the same.
    """
    connector: Any = trainer._signal_connector
    connector.register_signal_handlers = lambda: None
