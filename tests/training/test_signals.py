"""Lightning answers no signal: the job does, which saves a state first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from trainlarge.training.signals import leave_signals_to_the_job


class Sleepless(lightning.LightningModule):
    """Sends SIGTERM to its own process, in hooks all around the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.steps = 0

    def setup(self, stage: str) -> None:
        """Before Lightning sets handlers."""
        os.kill(os.getpid(), signal.SIGTERM)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """When it has set them, and training has not started."""
        os.kill(os.getpid(), signal.SIGTERM)
        return DataLoader(torch.ones(3, 1))

    def on_train_epoch_start(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return self.layer(batch).sum()

    def on_train_batch_end(self, outputs: object, batch: Tensor, index: int) -> None:
        self.steps += 1
        os.kill(os.getpid(), signal.SIGTERM)

    def on_fit_end(self) -> None:
        """When Lightning has given its handlers back."""
        os.kill(os.getpid(), signal.SIGTERM)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_only_the_handler_of_the_job_sees_a_signal() -> None:
    seen: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before, module = signal.signal(signal.SIGTERM, handler), Sleepless()
    # A job has threads, to which the system may give the signal.
    done = threading.Event()
    heartbeat = threading.Thread(target=done.wait)
    heartbeat.start()
    try:
        trainer = lightning.Trainer(barebones=True, accelerator="cpu", max_epochs=1)
        leave_signals_to_the_job(trainer)
        trainer.fit(module)
        assert module.steps == 3 and len(seen) == 1 + 1 + 1 + 3 + 3 + 1
        assert signal.getsignal(signal.SIGTERM) is handler and not trainer.received_sigterm
    finally:
        done.set()
        heartbeat.join()
        signal.signal(signal.SIGTERM, before)
