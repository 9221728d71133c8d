"""Runs a compress job: one checkpoint, every recipe, and a record for each cell."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, replace

import torch

from trainlarge.compression.compressed import Compressed
from trainlarge.compression.grid import compress_grid
from trainlarge.compression.loaded_checkpoint import LoadedCheckpoint, no_number
from trainlarge.compression.parent import check_dense, proven_parent
from trainlarge.compression.record import RecipeResult, compress_record
from trainlarge.compression.recovery import StudyTrainer
from trainlarge.compression.stored.packing import save_packed
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.machine.device import choose, is_shared
from trainlarge.machine.probe import PRECISIONS
from trainlarge.models.weight_error import weight_errors
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import write_json
from trainlarge.sweep.status import CellProgress
from trainlarge.sweep.step_times import PROBES
from trainlarge.tasks.predictions import write_predictions

log = logging.getLogger(__name__)


def run(job: RunningJob) -> None:
    """Compress one checkpoint by the recipe of each cell of the job."""
    CheckpointRun(job).run()


class CheckpointRun:
    """One checkpoint, and the recipes by which it is compressed.

    Args:
        job: the claimed cells.

    Raises:
        UserError: the checkpoint has changed, or its loss is no number.
    """

    def __init__(self, job: RunningJob) -> None:
        self.job, self.cells = job, job.cells
        config = self.cells[0].as_compress
        self.recipes = [cell.as_compress.recipe for cell in self.cells]
        is_training = any(recipe.recover for recipe in self.recipes)
        implementation = choose(
            replace(config.impl, compile="none", strategy="auto"),
            cores=job.resources.cores,
            measured=job.study.path / PROBES / PRECISIONS if is_training else None,
        )
        torch.set_num_threads(implementation.threads)
        self.was_shared = is_shared(implementation.threads, job.resources.jobs_per_device)
        self.checkpoint = LoadedCheckpoint(proven_parent(config, job.study), implementation, job.study.data_root)
        dense, parent = self.checkpoint.dense, self.checkpoint.parent
        if parent.is_cell:
            check_dense(dense.loss, self.checkpoint.evaluation_set, job.study.folder("train", parent.id))
        is_cutting = any(recipe.vocabulary for recipe in self.recipes)
        self.tokens = self.checkpoint.token_facts() if is_cutting else None
        self.trainer = StudyTrainer(job, self.checkpoint) if is_training else None
        self.ended: set[str] = set()

    def run(self) -> None:
        """Compress, evaluate, pack and record, recipe by recipe.

        One that does not fit the model, or whose model computes no numbers, fails alone.
        """
        began = started = time.time()
        weights, calibration = self.checkpoint.weights, self.checkpoint.calibration
        results = compress_grid(weights, self.recipes, calibration, self.tokens, self._refuse, self.trainer)
        for position, compressed in results:
            loss = self._write(position, compressed, started)
            # Or else the next one is made while this one is still in memory.
            del compressed
            if loss is None:
                continue
            started = time.time()
            self._report_progress(self.cells[position], loss, started - began)
            self.job.check()

    def _write(self, position: int, compressed: Compressed, started: float) -> float | None:
        """Evaluate, pack and record one recipe; its loss, or None where that is no number."""
        cell, (evaluation, texts) = self.cells[position], self.checkpoint.evaluate_compressed(compressed)
        if not math.isfinite(evaluation.loss):
            self._refuse(position, no_number(evaluation.loss, "recipe", compressed.recipe.describe()))
            return None
        self.job.require_lease(cell.id)
        folder, weights = self.job.folder(cell.id), self.checkpoint.weights
        if compressed.warning:
            log.warning("%s", compressed.warning, extra={"cell": cell.id})
        save_packed(folder.packed, compressed, parent=self.checkpoint.parent.id)
        errors = weight_errors(weights.tensors, compressed.expanded(), weights.all_matrices)
        write_json(folder.weight_errors, {name: asdict(error) for name, error in errors.items()})
        losses = {"loss": evaluation.losses, "dense_loss": self.checkpoint.dense.losses}
        folder.write_document_losses(self.checkpoint.documents.file(**losses))
        write_predictions(folder.path, self.checkpoint.evaluation_set, evaluation)
        if compressed.training is not None:
            folder.write_metrics([row.to_json() for row in compressed.training.curve])
        result = RecipeResult(cell, compressed, evaluation, texts, errors, started)
        self.job.finish(cell.id, compress_record(self.job, self.checkpoint, result, self.was_shared))
        self.ended.add(cell.id)
        return evaluation.loss

    def _refuse(self, position: int, error: UserError) -> None:
        cell = self.cells[position]
        log.error("%s", error, extra={"cell": cell.id})
        self.job.fail(cell.id, error)
        self.ended.add(cell.id)

    def _report_progress(self, cell: Cell, loss: float, seconds: float) -> None:
        left = [other.id for other in self.cells if other.id not in self.ended]
        done = len(self.ended)
        self.job.progress(
            # Of the cell that is running to the end: the next one may be done before anybody reads its status.
            left[-1] if left else cell.id,
            CellProgress(done, len(self.cells), loss, seconds_left=seconds / done * len(left)),
        )
