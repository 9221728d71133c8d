"""What all cells of a train job share: device, data, evaluation set, model and step times."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from trainlarge.data.blocks import Blocks
from trainlarge.data.documents import frequency_loss, token_counts
from trainlarge.data.evaluation import EvaluationSet, evaluation_set, training_sample
from trainlarge.data.prepare import PreparedData, prepare
from trainlarge.errors import UserError
from trainlarge.machine.device import Implementation, choose, is_shared
from trainlarge.machine.memory import free_memory, keep_freed_memory
from trainlarge.machine.place import jobs_per_device
from trainlarge.machine.probe import PRECISIONS, StepTiming, settle
from trainlarge.models.build import build_model
from trainlarge.models.forward import FORWARDS, Forward
from trainlarge.sweep.step_times import PROBES
from trainlarge.sweep.store import Study
from trainlarge.training.compiling import Compiling
from trainlarge.training.document_losses import Documents
from trainlarge.training.loop import Loop
from trainlarge.training.micro_batch import MORE, STATE_BYTES, fitting_rows, saved_row_bytes
from trainlarge.training.module import MaskedLanguageModule, Masking
from trainlarge.training.ranks import least_of_ranks, settled_by_rank_0
from trainlarge.training.run_timing import RunTiming
from trainlarge.training.sharding import shard
from trainlarge.training.steps import Step, shape_of, step_of
from trainlarge.training.width import scale_initial_weights

COMPILED = "compiled"
"""Folder of compiled code, beside prepared data."""
COMPILING_STEPS = 3
"""Steps until nothing more is compiled: a CUDA graph is warmed up, recorded, and first run as a graph."""


class Setup:
    """A model ready to train, on data that is ready to be trained on.

    Args:
        study: where prepared data and probes lie.
        config: of any of the job's cells, since they differ in their budgets only.
    """

    def __init__(self, study: Study, config: dict[str, Any]) -> None:
        self.config = config
        self.implementation: Implementation = choose(config["impl"], study.path / PROBES / PRECISIONS)
        keep_freed_memory()
        torch.set_num_threads(self.implementation.threads)
        self.was_shared = is_shared(self.implementation.threads)
        self.prepared: PreparedData = prepare(config["data"], study.data_root)
        self.evaluation_set: EvaluationSet = evaluation_set_of(config, self.prepared)
        self.documents = Documents.of(self.evaluation_set)
        self.token_frequency_loss = frequency_loss(token_counts(self.prepared), self.evaluation_set.labels.numpy())
        self.blocks = training_blocks(config, self.prepared)
        self.training_sample: EvaluationSet = training_sample(
            self.prepared, self.blocks, config["task"]["evaluation_rows"], config["task"]["evaluation_mask_rate"]
        )
        self.forward: Forward = FORWARDS[self.implementation.forward]
        self.step: Step = step_of(config)
        self.compiling = Compiling(self.implementation.compile, self.implementation.threads, study.data_root / COMPILED)
        self.loop = self._loop()
        self.compiling.warm_up(partial(self.loop.timed, COMPILING_STEPS))
        self.timing = StepTiming(study.path / PROBES, self._probe_key())
        sharing = {"devices": config["impl"]["devices"], "per_device": jobs_per_device()}
        self.run_timing = RunTiming({**self.implementation.to_json(), **sharing}, self.settle())

    def settle(self, patience: float = 0.0, least: int = 0) -> float:
        """The steady-state step time; steps are timed where it is not known or, with ``patience``, not settled.

        Args:
            patience: seconds that may be spent on it.
            least: rounds to time in any case.
        """
        return settled_by_rank_0(partial(settle, self.timing, patience=patience, least=least), self.loop.timed)

    @property
    def is_sharded(self) -> bool:
        """Whether each device has a share of the model only."""
        return self.implementation.strategy == "fsdp"

    def _loop(self) -> Loop:
        arch, impl, seed = self.config["arch"], self.config["impl"], self.config["seed"]
        attention = self.implementation.attention
        model = build_model(shape_of(self.config), init_std=arch["init_std"], seed=seed, attention=attention)
        scale_initial_weights(model, self.config["optim"])
        masking = Masking.of(self.prepared, self.step, seed)
        rows = impl["micro_batch_rows"] or self._fitting_rows(model, masking)
        if self.is_sharded:
            self.forward = shard(model, self.forward, self.implementation.device)
        loss, is_divisible = self.compiling.of(self.forward.loss), self.implementation.compile != "graphs"
        module = MaskedLanguageModule(model, masking, self.config["optim"], loss, rows, is_divisible)
        return Loop(module, self.blocks, self.step.rows, self.implementation, impl)

    def _fitting_rows(self, model: PreTrainedModel, masking: Masking) -> int:
        """Rows at once that the memory has room for; 0, the whole batch, where a GPU will tell.

        Every rank sees other free memory at its moment, and must take as many backward passes as the others.
        """
        devices = self.config["impl"]["devices"]
        rows = self.step.rows // devices
        if self.implementation.device != "cpu" or rows < MORE:
            return 0
        masked = masking.apply(0, torch.from_numpy(self.blocks.batch(0, MORE)), torch.Generator())
        row_bytes = saved_row_bytes(model, self.forward.loss, masked, self.implementation.precision)
        model_bytes = STATE_BYTES * sum(parameter.numel() for parameter in model.parameters())
        sharing = (self.config["workers"] or 1) * devices
        return least_of_ranks(fitting_rows(rows, row_bytes, model_bytes, free_memory() / sharing))

    def _probe_key(self) -> dict[str, Any]:
        arch = {key: value for key, value in self.config["arch"].items() if key != "init_std"}
        step = {"rows": self.step.rows, "sequence_length": self.step.sequence_length, "masked": self.step.masked}
        vocab_size = self.config["data"]["vocab_size"]
        devices = self.config["impl"]["devices"]
        made = {"implementation": self.implementation.to_json(), "torch": str(torch.__version__)}
        key = {**made, "arch": arch, "vocab_size": vocab_size, "step": step}
        # What is timed on several devices, or beside other jobs of ours, must not be taken for one alone.
        several = {"devices": devices} if devices > 1 else {}
        shared = {"per_device": jobs_per_device()} if jobs_per_device() > 1 else {}
        parts = self.config["impl"]["micro_batch_rows"]
        return {**key, **several, **shared, **({"micro_batch_rows": parts} if parts else {})}


def training_blocks(config: dict[str, Any], prepared: PreparedData) -> Blocks:
    """The training blocks of a train cell.

    Raises:
        UserError: when ``data.fraction`` leaves less than one batch.
    """
    rows, fraction = step_of(config).rows, config["data"]["fraction"]
    whole = Blocks(prepared.train, config["data"]["sequence_length"], config["seed"])
    if fraction < 1 and round(fraction * len(whole)) < rows:
        needed = f"at least {rows / len(whole):.2g}: a batch has {rows} rows and the training data {len(whole)}"
        raise UserError("data.fraction", fraction, needed)
    return Blocks(prepared.train, config["data"]["sequence_length"], config["seed"], fraction)


def evaluation_set_of(config: dict[str, Any], prepared: PreparedData) -> EvaluationSet:
    """The fixed evaluation set of a train cell's configuration."""
    task, length = config["task"], config["data"]["sequence_length"]
    return evaluation_set(prepared, length, task["evaluation_rows"], task["evaluation_mask_rate"])
