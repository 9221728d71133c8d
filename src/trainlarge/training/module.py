"""The Lightning module that trains a masked language model, and the batches it eats."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel

from trainlarge.data.blocks import Blocks
from trainlarge.data.masking import MaskedBatch, mask_tokens
from trainlarge.data.prepare import PreparedData
from trainlarge.errors import UserError
from trainlarge.models.forward import masked_loss
from trainlarge.training.compiling import Loss
from trainlarge.training.ranks import rank_and_count
from trainlarge.training.steps import Step
from trainlarge.training.width import query_steps, scales

Observer = Callable[[int, Tensor], None]
"""Told, after each optimizer step, how many steps are done and the loss of the last one (nats per token)."""


@dataclass(frozen=True)
class Masking:
    """Dynamic masking: other masks for every (seed, step), the same for the same."""

    count: int
    """Masked positions in a row."""
    mask_id: int
    """Id of ``[MASK]``."""
    vocab_size: int
    """Entries of the vocabulary."""
    first_regular_id: int
    """First id that is no special token."""
    seed: int
    """Seed of the cell."""

    @classmethod
    def of(cls, prepared: PreparedData, step: Step, seed: int) -> Masking:
        """The masking of a train cell."""
        return cls(step.masked, prepared.mask_id, prepared.vocab_size, prepared.first_regular_id, seed)

    def apply(self, step: int, ids: Tensor, generator: torch.Generator) -> MaskedBatch:
        """Mask rows ``ids`` [rows, sequence] for ``step``."""
        generator.manual_seed(step_seed(self.seed, step))
        return mask_tokens(
            ids, self.count, generator,
            mask_id=self.mask_id, vocab_size=self.vocab_size, first_regular_id=self.first_regular_id,
        )  # fmt: skip


class StepBatches(IterableDataset[tuple[int, MaskedBatch]]):
    """The masked batches of steps ``start`` to ``stop``, each a pure function of (seed, step).

    Masks are drawn on the CPU whatever computes the step: the generator of a GPU gives other numbers for the same seed.

    Args:
        is_for_gpu: whether to hand batches on in memory from which a GPU fetches them while Python goes on.
    """

    def __init__(
        self, blocks: Blocks, masking: Masking, rows: int, start: int, stop: int, is_for_gpu: bool = False
    ) -> None:
        self.blocks, self.masking, self.rows, self.start, self.stop = blocks, masking, rows, start, stop
        self.is_for_gpu = is_for_gpu

    def __iter__(self) -> Iterator[tuple[int, MaskedBatch]]:
        generator = torch.Generator()
        for step in range(self.start, self.stop):
            batch = self.masking.apply(step, torch.from_numpy(self.blocks.batch(step, self.rows)), generator)
            yield step, MaskedBatch(*(tensor.pin_memory() for tensor in batch)) if self.is_for_gpu else batch

    def __len__(self) -> int:
        return self.stop - self.start

    def loader(self) -> DataLoader[tuple[int, MaskedBatch]]:
        """A loader that hands the batches on as they are."""
        return DataLoader(self, batch_size=None, num_workers=0)


class MaskedLanguageModule(lightning.LightningModule):
    """Trains a Hugging Face masked language model; one instance serves a whole job, trunk and branches.

    Optimization is manual in Lightning's sense: one batch is one optimizer step, taken in as many micro-batches as the
    memory asks for. Where memory runs out, the micro-batch is halved and the step taken again: the effective batch, and
    so the gradient but for rounding, stays. Not so on several devices: the others wait in the middle of the same step.

    Args:
        model: the model, whose parameters are trained in place.
        masking: how batches were masked; its seed is that of dropout too.
        optim: the group ``optim`` of the configuration, with ``peak_lr`` filled in.
        loss: mean loss of masked positions, ``(model, inputs [rows, S], positions [rows, m], labels [rows, m]) -> []``.
        micro_batch_rows: rows at once; 0: the whole batch.
        is_divisible: whether the micro-batch may be halved where memory runs out; CUDA graphs do not allow it, since
            each run overwrites the gradients before it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        masking: Masking,
        optim: dict[str, Any],
        loss: Loss = masked_loss,
        micro_batch_rows: int = 0,
        is_divisible: bool = True,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.masking = masking
        self.optim = optim
        self.micro_batch_rows = micro_batch_rows
        self.is_divisible = is_divisible
        self.rate: Callable[[int], float] = lambda step: 1.0
        """Learning rate of a step as a share of ``optim.peak_lr``; set for each segment of training."""
        self.observer: Observer = lambda step, loss: None
        """Told after each step."""
        self._loss = loss
        self._has_dropout = any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())
        parameters = dict(model.named_parameters())
        self._query_factors = [
            (parameters[name], scale.queries) for name, scale in scales(model, optim).items() if scale.queries != 1
        ]
        self._optimizer: torch.optim.Optimizer | None = None

    def training_step(self, batch: tuple[int, MaskedBatch], batch_index: int) -> None:
        """One optimizer step on the masked rows of all ranks, then the observer."""
        step, masked = batch
        loss = self._mean_of_ranks(self._gradient(step, self._own_rows(masked)))
        if self.optim["clip"]:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.optim["clip"])
        optimizer = self.configure_optimizers()
        rate = self.optim["peak_lr"] * self.rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with query_steps(self._query_factors, rate * self.optim["weight_decay"]):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.observer(step + 1, loss)

    def on_train_start(self) -> None:
        """Bring the optimizer's state to its parameters: Lightning moves both, but leaves every ``step`` behind."""
        move_state_to_parameters(self.configure_optimizers())

    def configure_model(self) -> None:
        """Nothing: Lightning's strategy for divided models asks for this hook, and the job has divided its model."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, fused; made once and then kept, so that trunk and branches share its state."""
        if self._optimizer is None:
            self._optimizer = make_optimizer(self.model, self.optim)
        return self._optimizer

    def _own_rows(self, masked: MaskedBatch) -> MaskedBatch:
        """This rank's share of a batch: masks are drawn for the whole, so that they do not depend on the devices."""
        rank, count = rank_and_count()
        return MaskedBatch(*(tensor.chunk(count)[rank] for tensor in masked))

    def _mean_of_ranks(self, loss: Tensor) -> Tensor:
        return loss if rank_and_count()[1] == 1 else self.trainer.strategy.reduce(loss, reduce_op="mean")

    def _gradient(self, step: int, masked: MaskedBatch) -> Tensor:
        """Leave the gradient of the mean loss in the parameters; returns that loss (nats per token)."""
        while True:
            try:
                return self._accumulate(step, masked)
            except torch.OutOfMemoryError:
                pass
            # Behind the handler, since the error's traceback keeps the activations that did not fit.
            self._halve_micro_batch(len(masked.inputs))
            self.configure_optimizers().zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def _accumulate(self, step: int, masked: MaskedBatch) -> Tensor:
        if self._has_dropout:
            torch.manual_seed(step_seed(self.masking.seed, step) + 1 + rank_and_count()[0])
        rows = len(masked.inputs)
        size = self.micro_batch_rows or rows
        if size >= rows:
            return self._backward(masked, 1.0)
        parts = zip(*(tensor.split(size) for tensor in masked), strict=True)
        # Every row has as many masked positions, so the mean over the batch is the mean of the parts, weighted by rows.
        return torch.stack([self._backward(MaskedBatch(*part), len(part[0]) / rows) for part in parts]).sum()

    def _backward(self, part: MaskedBatch, share: float) -> Tensor:
        loss = self._loss(self.model, part.inputs, part.positions, part.labels)
        loss = loss if share == 1.0 else loss * share
        self.manual_backward(loss)
        return loss.detach()

    def _halve_micro_batch(self, rows: int) -> None:
        before = self.micro_batch_rows or rows
        if before == 1:
            raise UserError(
                "impl.micro_batch_rows", 1, "rows that fit in memory, and not even one does: a smaller model"
            )
        if not self.is_divisible:
            raise UserError("impl.compile", "graphs", "none or inductor: the batch does not fit in memory at once")
        if rank_and_count()[1] > 1:
            at_most = f"1 to {before - 1} with several devices: {before} rows at once do not fit in one's memory"
            raise UserError("impl.micro_batch_rows", self.micro_batch_rows, at_most)
        self.micro_batch_rows = -(-before // 2)
        print(f"out of memory with {before} rows at once; going on with {self.micro_batch_rows}", flush=True)


def make_optimizer(model: PreTrainedModel, optim: dict[str, Any]) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov & Hutter 2019); weight decay on matrices only.

    A group's ``scale`` is the factor of its rate by the rule ``optim.lr_rule``; its decay is divided by the factor, so
    that a step takes the same share of every matrix away.
    """
    parameters, found = dict(model.named_parameters()), scales(model, optim)
    kinds: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, scale in found.items():
        kinds.setdefault((parameters[name].ndim < 2, scale.rate), []).append(parameters[name])
    groups = [
        {"params": kinds[kind], "scale": kind[1], "weight_decay": 0.0 if kind[0] else optim["weight_decay"] / kind[1]}
        for kind in sorted(kinds)
    ]
    betas = (optim["beta1"], optim["beta2"])
    return torch.optim.AdamW(groups, lr=optim["peak_lr"], betas=betas, eps=optim["eps"], fused=True)


def move_state_to_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Move each entry of the state, ``step`` too, to the device of its parameter, as fused AdamW needs it."""
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.device != parameter.device:
                entries[name] = value.to(parameter.device)


def step_seed(seed: int, step: int) -> int:
    """A seed for one step: the first 62 bits that NumPy's ``SeedSequence`` mixes from (seed, step)."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 2)
