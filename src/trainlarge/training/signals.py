"""Signals go to the job, not to Lightning, which would leave the step without a saved state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as lightning


class SignalsOfTheJob(lightning.Callback):
    """Takes SIGTERM back from the trainer: its handler raises ``SIGTERMException`` between two steps.

    The signal waits in the kernel from before the trainer sets its handler until the job's is in place again, so that
    there is no moment in which Lightning could see it.
    """

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """To be held around ``fit``."""
        if threading.current_thread() is not threading.main_thread():
            # Python sets handlers in its main thread only, and so does Lightning.
            self._handler = None
            yield
            return
        self._handler = signal.getsignal(signal.SIGTERM)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Lightning has set its handler."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
