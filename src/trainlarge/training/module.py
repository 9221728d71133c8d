"""The Lightning module that takes the optimizer steps of a task, and the batches it trains on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel

from trainlarge.config.optim import OptimConfig
from trainlarge.data.blocks import step_seed
from trainlarge.errors import UserError
from trainlarge.tasks.task import Batch
from trainlarge.training.compiling import Loss
from trainlarge.training.modifier import Modifier
from trainlarge.training.ranks import rank_and_count
from trainlarge.training.width import query_steps, scales

log = logging.getLogger(__name__)

BatchOf = Callable[[int], Batch]
"""The batch of a step, on the CPU."""
Observer = Callable[[int, Tensor], None]
"""Called after each optimizer step with the number of steps done and the loss of the last one."""


@dataclass(frozen=True)
class Objective:
    """What is minimized."""

    loss: Loss
    """Sum of the losses of rows, and its weight, ``(model, batch) -> ([], [])``."""
    weight: Callable[[Batch], Tensor]
    """Weight of a batch, without computing its loss."""


class StepBatches(IterableDataset[tuple[int, Batch]]):
    """The batches of steps ``start`` to ``stop - 1``, each a pure function of (seed, step).

    Args:
        is_for_gpu: whether to hand batches on in memory from which a GPU fetches them while Python continues.
    """

    def __init__(self, batch_of: BatchOf, start: int, stop: int, is_for_gpu: bool = False) -> None:
        self.batch_of, self.start, self.stop, self.is_for_gpu = batch_of, start, stop, is_for_gpu

    def __iter__(self) -> Iterator[tuple[int, Batch]]:
        for step in range(self.start, self.stop):
            batch = self.batch_of(step)
            pinned = {name: tensor.pin_memory() for name, tensor in batch.items()} if self.is_for_gpu else batch
            yield step, pinned

    def __len__(self) -> int:
        return self.stop - self.start

    def loader(self) -> DataLoader[tuple[int, Batch]]:
        """A loader that hands the batches on as they are."""
        return DataLoader(self, batch_size=None, num_workers=0)


class TaskModule(lightning.LightningModule):
    """Trains a Hugging Face model on a task; one instance serves a whole job, trunk and branches.

    Optimization is manual in Lightning's sense: one batch is one optimizer step, taken in as many micro-batches as the
    memory asks for. Where memory runs out, the micro-batch is halved and the step taken again: the effective batch
    stays, and so does the gradient, apart from rounding. Several devices cannot do that, since the others wait in the
    middle of the same step: there it is an error.

    Args:
        model: the model, whose parameters are trained in place.
        objective: what is minimized.
        optim: the group ``optim`` of the configuration, with ``peak_lr`` filled in.
        seed: seed of dropout; with one number of rows at a time it draws the same for the same (seed, step).
        micro_batch_rows: rows at once; 0: the whole batch.
        is_divisible: whether the micro-batch may be halved where memory runs out; CUDA graphs do not allow it, since
            each run overwrites the gradients before it.
        modifiers: change the loss, and the model after each step.
    """

    def __init__(  # noqa: PLR0913  one for each part of training
        self,
        model: PreTrainedModel,
        objective: Objective,
        optim: OptimConfig,
        seed: int,
        micro_batch_rows: int = 0,
        is_divisible: bool = True,
        modifiers: Sequence[Modifier] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.objective = objective
        self.optim = optim
        self.seed = seed
        self.micro_batch_rows = micro_batch_rows
        self.is_divisible = is_divisible
        self.modifiers = modifiers
        self.rate: Callable[[int], float] = lambda _step: 1.0
        """Learning rate of a step as a share of ``optim.peak_lr``; set for each segment of training."""
        self.observer: Observer = lambda _step, _loss: None
        """Called after each step."""
        self._has_dropout = any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in model.modules())
        parameters = dict(model.named_parameters())
        # Kept, since small models take their steps in the time of a few walks through all modules.
        self._parameters_to_clip = list(parameters.values())
        self._loss_dtype = torch.promote_types(model.dtype, torch.float32)
        self._query_factors = [
            (parameters[name], scale.queries) for name, scale in scales(model, optim).items() if scale.queries != 1
        ]
        self._optimizer: torch.optim.Optimizer | None = None

    def training_step(self, batch: tuple[int, Batch], batch_index: int) -> None:
        """One optimizer step on the rows of all ranks, then the observer."""
        step, whole = batch
        rank, ranks = rank_and_count()
        # A batch is made as a whole, so that it does not depend on the devices.
        rows = {name: tensor.chunk(ranks)[rank] for name, tensor in whole.items()}
        loss = self._gradient(step, rows, self.objective.weight(whole))
        if ranks > 1:
            loss = self.trainer.strategy.reduce(loss, reduce_op="mean")
        for modifier in reversed(self.modifiers):
            modifier.before_step(step, self.model)
        if self.optim.clip:
            torch.nn.utils.clip_grad_norm_(self._parameters_to_clip, self.optim.clip)
        optimizer = self.configure_optimizers()
        rate = self.optim.rate * self.rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        with query_steps(self._query_factors, rate * self.optim.weight_decay):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for modifier in self.modifiers:
            modifier.after_step(step + 1, self.model)
        self.observer(step + 1, loss)

    def on_train_start(self) -> None:
        """Bring each entry of the optimizer's state to the device of its parameter, as fused AdamW needs it.

        Lightning moves both, but leaves every ``step`` behind.
        """
        for parameter, entries in self.configure_optimizers().state.items():
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.device != parameter.device:
                    entries[name] = value.to(parameter.device)

    def configure_model(self) -> None:
        """Nothing: Lightning's strategy for divided models asks for this hook, and the job has divided its model."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, fused; made once and then kept, so that trunk and branches share its state."""
        if self._optimizer is None:
            self._optimizer = make_optimizer(self.model, self.optim)
        return self._optimizer

    def _gradient(self, step: int, rows: Batch, total: Tensor) -> Tensor:
        """Leave the gradient of the loss in the parameters; returns the loss, which is to be averaged over ranks.

        Args:
            step: the step, for dropout.
            rows: the rows of this rank.
            total: weight of the rows of all ranks.
        """
        while True:
            try:
                return self._accumulate(step, rows, total)
            except torch.OutOfMemoryError:
                pass
            # Outside the handler, since the error's traceback keeps the activations that did not fit.
            self._halve_micro_batch(row_count(rows))
            self.configure_optimizers().zero_grad(set_to_none=True)
            torch.cuda.empty_cache()

    def _accumulate(self, step: int, rows: Batch, total: Tensor) -> Tensor:
        rank, ranks = rank_and_count()
        if self._has_dropout:
            torch.manual_seed(step_seed(self.seed, step) + 1 + rank)
        size = self.micro_batch_rows or row_count(rows)
        if size >= row_count(rows) and ranks == 1:
            return self._backward(rows, None)
        # DDP divides the sum of the ranks' gradients by their number.
        by_rank = total.clamp(min=1) / ranks
        return torch.stack([self._backward(part, by_rank) for part in micro_batches(rows, size)]).sum()

    def _backward(self, part: Batch, total: Tensor | None) -> Tensor:
        """Add the gradient of a part's share of the loss; returns that share.

        The mean of a part goes in with the share that it has in ``total``: so equal parts, and a batch in one piece
        (None), have the bits of plain means.
        """
        losses, weight = self.objective.loss(self.model, part)
        loss = (losses / weight.clamp(min=1)).to(self._loss_dtype)
        for modifier in self.modifiers:
            loss = modifier.loss(loss, self.model, part)
        if total is not None:
            loss = loss * (weight / total).to(loss.dtype)
        self.manual_backward(loss)
        return loss.detach()

    def _halve_micro_batch(self, rows: int) -> None:
        before = self.micro_batch_rows or rows
        if before == 1:
            raise UserError(
                "impl.micro_batch_rows", 1, "must fit in memory, and not even one row does: use a smaller model"
            )
        if not self.is_divisible:
            raise UserError("impl.compile", "graphs", "none or inductor: the batch does not fit in memory at once")
        if rank_and_count()[1] > 1:
            at_most = f"1 to {before - 1} with several devices: {before} rows at once do not fit in the memory of one"
            raise UserError("impl.micro_batch_rows", self.micro_batch_rows, at_most)
        self.micro_batch_rows = -(-before // 2)
        log.warning("out of memory with %d rows at once; continuing with %d", before, self.micro_batch_rows)


def make_optimizer(model: PreTrainedModel, optim: OptimConfig) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov & Hutter 2019); weight decay on matrices only.

    A group's ``scale`` is the factor of its rate by the rule ``optim.lr_rule``; its decay is divided by the factor, so
    that a step takes the same share of every matrix away.
    """
    parameters = dict(model.named_parameters())
    kinds: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, scale in scales(model, optim).items():
        kinds.setdefault((parameters[name].ndim < 2, scale.rate), []).append(parameters[name])
    groups = [
        {"params": kinds[kind], "scale": kind[1], "weight_decay": 0.0 if kind[0] else optim.weight_decay / kind[1]}
        for kind in sorted(kinds)
    ]
    betas = (optim.beta1, optim.beta2)
    return torch.optim.AdamW(groups, lr=optim.rate, betas=betas, eps=optim.eps, fused=True)


def row_count(batch: Batch) -> int:
    """Rows of a batch."""
    return len(next(iter(batch.values())))


def micro_batches(batch: Batch, rows: int) -> Iterator[Batch]:
    """Parts of at most so many rows, in order."""
    for parts in zip(*(tensor.split(rows) for tensor in batch.values()), strict=True):  # type: ignore[no-untyped-call]
        yield dict(zip(batch, parts, strict=True))
