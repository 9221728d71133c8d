"""What all cells of a train job share: device, data, evaluation set, model and step times."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from trainlarge.config.group import Plain
from trainlarge.config.schema import TrainConfig
from trainlarge.data.arrays import Integers
from trainlarge.data.buckets import StepLengths
from trainlarge.data.evaluation_texts import prepare_evaluations
from trainlarge.data.prepare import PreparedData
from trainlarge.machine.device import choose, is_shared
from trainlarge.machine.implementation import Implementation
from trainlarge.machine.memory import keep_freed_memory
from trainlarge.machine.probe import PRECISIONS, StepTiming, settle
from trainlarge.machine.resources import Resources
from trainlarge.models.forward import FORWARDS
from trainlarge.models.shape import head_of, shape_of
from trainlarge.models.start import pooling_of_start
from trainlarge.sweep.step_times import PROBES
from trainlarge.sweep.store import Study
from trainlarge.tasks.data_check import check_unknown
from trainlarge.tasks.evaluation import EvaluationSet
from trainlarge.tasks.step import Step, impl_in, step_of, timed_step, uneven
from trainlarge.tasks.task import Task, make_task
from trainlarge.training.compiling import Compiling
from trainlarge.training.document_losses import Documents
from trainlarge.training.first_model import first_model
from trainlarge.training.loop import Loop
from trainlarge.training.micro_batch import rows_that_fit
from trainlarge.training.module import Objective
from trainlarge.training.ranks import least_of_ranks, settled_by_rank_0
from trainlarge.training.run_timing import RunTiming
from trainlarge.training.sharding import shard
from trainlarge.training.start import Start, proven_start

COMPILED = "compiled"
"""Folder of compiled code, next to prepared data."""
COMPILING_STEPS = 3
"""Steps until nothing more is compiled: a CUDA graph is warmed up, recorded, and first run as a graph."""


class TrainContext:
    """A model ready to train, on data that is ready to be trained on.

    Args:
        study: where prepared data and step times are kept.
        config: of any of the job's cells, since they differ in their budgets only.
        resources: cores and GPUs of the job; None: the whole machine.
    """

    def __init__(self, study: Study, config: TrainConfig, resources: Resources | None = None) -> None:
        self.config = config
        self.resources = resources or Resources.whole_machine()
        precisions = study.path / PROBES / PRECISIONS
        impl = impl_in(config)
        self.implementation: Implementation = choose(impl, precisions, self.resources.cores)
        keep_freed_memory()
        torch.set_num_threads(self.implementation.threads)
        self.was_shared = is_shared(self.implementation.threads, self.resources.jobs_per_device)
        self.task: Task = make_task(config.task, config.data, FORWARDS[self.implementation.forward])
        self.start: Start | None = proven_start(config, study)
        """What is trained further; None for initial weights."""
        pooling = pooling_of_start(self.start.folder, shape_of(config), head_of(config)) if self.start else None
        self.step: Step = step_of(config, pooling)
        tokenizer = self.start.tokenizer if self.start else None
        self.prepared: PreparedData = self.task.prepare(study.data_root, tokenizer)
        check_unknown(self.prepared, tokenizer)
        self.training_rows = self.task.training_rows(self.prepared, self.step.rows)
        """Rows of training data in use."""
        if not config.task.has_even_steps:
            self.step = uneven(self.step, config, StepLengths(self._longest_rows), pooling)
        self._draw_sets(study)
        self.compiling = Compiling(self.implementation.compile, self.implementation.threads, study.data_root / COMPILED)
        self.loop = self._loop()
        self.compiling.warm_up(partial(self.loop.timed, COMPILING_STEPS))
        self.timing = StepTiming(study.path / PROBES, self._probe_key())
        sharing = {"devices": config.impl.devices, "per_device": self.resources.jobs_per_device}
        self.run_timing = RunTiming({**self.implementation.to_json(), **sharing}, self.settle())

    def _draw_sets(self, study: Study) -> None:
        """The fixed rows that models are evaluated on, and what predicting by frequencies gives there."""
        config = self.config
        self.evaluation_set: EvaluationSet = self.task.evaluation_set(self.prepared)
        self.selection_set: EvaluationSet | None = self.task.selection_set(self.prepared)
        self.training_sample: EvaluationSet = self.task.training_sample(self.prepared, config.seed)
        texts = prepare_evaluations(config.data, self.prepared, study.data_root)
        self.text_sets = {name: self.task.evaluation_set(text.prepared) for name, text in texts.items()}
        """The same of each of ``data.evaluations``."""
        self.text_rows = [*self.prepared.text_rows(), *(text.row for text in texts.values())]
        """What was read and written of each text."""
        self.documents = Documents.of(self.evaluation_set)
        self.baseline = self.task.baseline(self.prepared, self.evaluation_set)
        """Scores of predicting by frequencies alone."""

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
        impl, seed, model = self.config.impl, self.config.seed, self.first_model()
        rows = impl.micro_batch_rows or self._fitting_rows(model)
        if self.is_sharded:
            forward = shard(model, FORWARDS[self.implementation.forward], self.implementation.device)
            self.task = make_task(self.config.task, self.config.data, forward)
        objective = Objective(self.compiling.of(self.task.loss), self.task.weight)
        return Loop(
            model,
            objective,
            lambda step: self.task.batch(self.prepared, seed, step, self.step.rows),
            self.config.optim,
            self.implementation,
            seed=seed,
            devices=impl.devices,
            micro_batch_rows=rows,
        )

    def first_model(self) -> PreTrainedModel:
        """A model with the first weights of the cells: initial ones, but for those that are taken from a checkpoint."""
        return first_model(self.config, self.start, self.prepared.pad_id, self.implementation.attention)

    def _fitting_rows(self, model: PreTrainedModel) -> int:
        """As ``rows_that_fit``. Ranks see different free memory, and must all take as many backward passes."""
        devices, sharing = self.config.impl.devices, (self.config.workers or 1) * self.config.impl.devices

        batch_of = partial(self.task.largest_batch, self.prepared)
        rows = rows_that_fit(model, self.task.loss, batch_of, self.step.rows // devices, self.implementation, sharing)
        return least_of_ranks(rows) if rows else 0

    def _longest_rows(self, start: int, stop: int) -> Integers:
        """Tokens of the longest row of steps, [steps]."""
        return np.asarray(self._row_lengths(start, stop).max(1))

    def _row_lengths(self, start: int, stop: int) -> Integers:
        return self.task.row_lengths(self.prepared, self.config.seed, self.step.rows, start, stop)

    def padding_share(self, steps: int) -> float | None:
        """Share of the tokens of the first steps that are padding; None before the first."""
        return 1 - int(self._row_lengths(0, steps).sum()) / self.step.tokens_of(0, steps) if steps else None

    def _probe_key(self) -> dict[str, Plain]:
        """Names the step and how it is computed: the key of its file of step times."""
        return {
            "implementation": self.implementation.to_json(),
            "torch": str(torch.__version__),
            **timed_step(self.config, self.resources.jobs_per_device),
        }
