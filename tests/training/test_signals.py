from __future__ import annotations

import os
import signal
from types import FrameType

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from trainlarge.training.signals import SignalsOfTheJob


class Sleepless(lightning.LightningModule):
    """Sends SIGTERM to its own process, in hooks all around the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.steps = 0

    def setup(self, stage: str) -> None:
        """Before Lightning's handler is set, and the job's again."""
        os.kill(os.getpid(), signal.SIGTERM)

    def on_train_epoch_start(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return self.layer(batch).sum()

    def on_train_batch_end(self, outputs: object, batch: Tensor, index: int) -> None:
        self.steps += 1
        os.kill(os.getpid(), signal.SIGTERM)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_only_the_handler_of_the_job_sees_a_signal() -> None:
    seen: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before, module = signal.signal(signal.SIGTERM, handler), Sleepless()
    try:
        signals = SignalsOfTheJob()
        with signals.fitting():
            trainer = lightning.Trainer(barebones=True, accelerator="cpu", max_epochs=1, callbacks=[signals])
            trainer.fit(module, DataLoader(torch.ones(3, 1)))
        assert module.steps == 3 and len(seen) == 1 + 1 + 3 + 3
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    finally:
        signal.signal(signal.SIGTERM, before)
