"""Runs a compress job: one checkpoint, every recipe, and a record for each cell."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainlarge.compression.calibration import Calibration
from trainlarge.compression.evaluated_model import EvaluatedModel, is_large
from trainlarge.compression.grid import Compressed, compress_grid
from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.layout.tokens import removed_share, renumbered
from trainlarge.compression.parent import check_dense, proven_parent
from trainlarge.compression.recovery import StudyTrainer
from trainlarge.compression.stored.packing import save_packed
from trainlarge.compression.stored.sizes import Sizes
from trainlarge.compression.stored.zstd import zstd_bytes
from trainlarge.compression.token_counts import token_facts
from trainlarge.compression.training import NO_TRAINING, Trainer
from trainlarge.compression.weight_error import WeightError, total_relative_squared_error, weight_errors
from trainlarge.compression.weights import Weights
from trainlarge.config.method import MatrixMethod, Method
from trainlarge.config.plain import to_plain
from trainlarge.data.model_tokenizer import model_tokenizer
from trainlarge.errors import UserError
from trainlarge.launch.job import RunningJob
from trainlarge.machine.device import Implementation, choose, is_shared
from trainlarge.machine.probe import PRECISIONS
from trainlarge.machine.provenance import origin, software
from trainlarge.models.build import load_model
from trainlarge.models.fake_quantize import fake_quantized_inputs
from trainlarge.models.family import Head
from trainlarge.models.forward import FORWARDS
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.files import write_json
from trainlarge.sweep.records import RECORD_SCHEMAS, CompressRecord, Environment, EvaluationData, Provenance
from trainlarge.sweep.step_times import PROBES
from trainlarge.tasks.evaluation import Evaluation, EvaluationSet, perplexity
from trainlarge.tasks.task import Task, make_task
from trainlarge.training.document_losses import Documents

log = logging.getLogger(__name__)


def run(job: RunningJob) -> None:
    """Compress one checkpoint by the recipe of each cell of the job."""
    CheckpointRun(job).run()


class CheckpointRun:
    """One checkpoint, loaded once, with its evaluation set."""

    def __init__(self, job: RunningJob) -> None:
        self.job = job
        self.cells: list[Cell] = job.cells
        config = self.cells[0].as_compress
        self.recipes = [cell.as_compress.recipe for cell in self.cells]
        is_training = any(recipe.recover for recipe in self.recipes)
        measured = job.study.path / PROBES / PRECISIONS if is_training else None
        impl = replace(config.impl, compile="none", strategy="auto")
        self.implementation: Implementation = choose(impl, cores=job.resources.cores, measured=measured)
        torch.set_num_threads(self.implementation.threads)
        self.was_shared = is_shared(self.implementation.threads, job.resources.jobs_per_device)
        self.parent = proven_parent(config, job.study)
        # First what can be wrong and is quick to find: preparing data may take minutes.
        model = load_model(
            self.parent.folder, attention=self.implementation.attention, head=Head(self.parent.task.head)
        )
        own = None if self.parent.is_cell else model_tokenizer(self.parent.folder, _entries(model))
        self.task: Task = make_task(self.parent.task, self.parent.data, FORWARDS[self.implementation.forward])
        prepared = self.task.prepare(job.study.data_root, own)
        self.evaluation_set: EvaluationSet = self.task.evaluation_set(prepared)
        self.documents = Documents.of(self.evaluation_set)
        self.weights = Weights.of(model, on_disk=is_large(model))
        self.evaluated = EvaluatedModel(model, self.weights, self.implementation.device)
        # Or else its weights stay in memory next to those of the model that takes its place.
        del model
        self.model: PreTrainedModel = cast(Any, self.evaluated.model)
        self.calibration = Calibration(self.weights, self.model, lambda: self.task.calibration(prepared))
        self.ended: set[str] = set()
        self.tokens = token_facts(prepared) if any(recipe.vocabulary for recipe in self.recipes) else None
        self.dense = self._evaluate_dense()
        if not math.isfinite(self.dense.loss):
            raise _no_number(self.dense.loss, "checkpoint", self.parent.folder)
        if self.parent.is_cell:
            check_dense(self.dense.loss, self.evaluation_set, job.study.folder("train", self.parent.id))
        self.trainer: Trainer | None = None
        if is_training:
            self.trainer = StudyTrainer(job, self.parent, self.task, prepared, self.implementation)

    def run(self) -> None:
        """Compress, evaluate, pack and record, recipe by recipe.

        One that does not fit the model, or whose model computes no numbers, fails alone.
        """
        began = started = time.time()
        results = compress_grid(self.weights, self.recipes, self.calibration, self.tokens, self._refuse, self.trainer)
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
        cell, evaluation = self.cells[position], self._evaluate_compressed(compressed)
        if not math.isfinite(evaluation.loss):
            self._refuse(position, _no_number(evaluation.loss, "recipe", compressed.recipe.describe()))
            return None
        self.job.require_lease(cell.id)
        folder = self.job.folder(cell.id)
        save_packed(folder.packed, compressed, parent=self.parent.id)
        errors = weight_errors(self.weights.tensors, compressed.expanded(), self.weights.selected(embeddings=True))
        write_json(folder.weight_errors, {name: asdict(error) for name, error in errors.items()})
        losses = {"loss": evaluation.losses, "dense_loss": self.dense.losses}
        folder.write_document_losses(self.documents.file(**losses))
        self.job.finish(cell.id, self._record(cell, compressed, evaluation, errors, started))
        self.ended.add(cell.id)
        return evaluation.loss

    def _refuse(self, position: int, error: UserError) -> None:
        cell = self.cells[position]
        log.error("%s", error, extra={"cell": cell.id})
        self.job.fail(cell.id, error)
        self.ended.add(cell.id)

    def _evaluate_dense(self) -> Evaluation:
        with self.evaluated.holding(self.weights.as_stored()):
            return self._evaluate()

    def _evaluate(self) -> Evaluation:
        return self.task.evaluate(self.model, self.evaluation_set)

    def _evaluate_compressed(self, compressed: Compressed) -> Evaluation:
        """On the checkpoint's model where the weights fit into it, else on one of their own.

        Where the vocabulary was cut, tokens that are not left are read, and are to be predicted, as the unknown token;
        the record's ``unknown_share`` says how many. Such a loss is not that of the whole vocabulary.
        """
        if not compressed.has_other_shapes:
            packed = compressed.packed
            with self.evaluated.holding(packed.stored), fake_quantized_inputs(self.model, packed.quantizers):
                return self._evaluate()
        model = cast(Any, compressed.model()).to(self.implementation.device)
        return self.task.evaluate(model, _renumbered(self.evaluation_set, compressed.left.structure))

    def _report_progress(self, cell: Cell, loss: float, seconds: float) -> None:
        left = [other.id for other in self.cells if other.id not in self.ended]
        done = len(self.ended)
        self.job.progress(
            # Of the cell that is running to the end: the next one may be done before anybody reads its status.
            left[-1] if left else cell.id,
            step=done,
            steps=len(self.cells),
            loss=loss,
            seconds_left=seconds / done * len(left),
        )

    def _record(
        self,
        cell: Cell,
        compressed: Compressed,
        evaluation: Evaluation,
        errors: dict[str, WeightError],
        started: float,
    ) -> CompressRecord:
        recipe, recovery = compressed.recipe, compressed.training or NO_TRAINING
        whole, body = zstd_bytes(self.job.folder(cell.id).packed, compressed.left.embeddings)
        return CompressRecord(
            schema=RECORD_SCHEMAS["compress"],
            stage="compress",
            cell=cell.id,
            study=self.job.study.name,
            parent=self.parent.id,
            recipe=recipe.to_json(),
            description=recipe.describe(),
            order=list(recipe.order or ()),
            structure=_counts(compressed.left.structure),
            unknown_share=removed_share(self.evaluation_set.tokens, compressed.left.structure.tokens),
            scores=evaluation.metrics,
            **self._losses(evaluation),
            sparsity=getattr(recipe.prune, "sparsity", 0.0),
            bits=getattr(recipe.quantize, "bits", 32),
            embedding_bits=_embedding_bits(recipe.quantize),
            activation_bits=getattr(recipe.activations, "bits", 32),
            **_counted(compressed.sizes),
            zstd_bytes=whole,
            zstd_bytes_without_embeddings=body,
            relative_squared_error=total_relative_squared_error(errors.values()),
            recover_steps=recovery.steps,
            recover_flops=recovery.flops,
            recover_seconds=recovery.seconds,
            recover_precision=recovery.precision,
            seconds=time.time() - started,
            data=EvaluationData(
                fingerprint=self.parent.data.known_fingerprint,
                evaluation_fingerprint=self.evaluation_set.fingerprint,
                **self.documents.facts(),
            ),
            environment=self._environment(),
            provenance=Provenance(**origin(self.job.command), started=started, ended=time.time()),
            config=to_plain(cell.config),
        )

    def _losses(self, evaluation: Evaluation) -> dict[str, Any]:
        """Losses of the compressed model and of the checkpoint, with their standard errors."""
        dense = self.dense
        return {
            "perplexity": perplexity(evaluation.loss),
            "dense_loss": dense.loss,
            "loss_increase": evaluation.loss - dense.loss,
            "loss_standard_error": standard_error(evaluation.row_losses),
            "increase_standard_error": standard_error(evaluation.row_losses - dense.row_losses),
            "document_standard_error": self.documents.standard_error(evaluation.losses),
            "increase_document_standard_error": self.documents.standard_error(evaluation.losses - dense.losses),
        }

    def _environment(self) -> Environment:
        implementation = {**self.implementation.to_json(), "precision": "fp32"}
        return Environment(
            **implementation, shared=self.was_shared, per_device=self.job.resources.jobs_per_device, software=software()
        )


def _counted(sizes: Sizes) -> dict[str, Any]:
    """Parameters and bytes, each with and without embeddings."""
    parts = ("", "_without_embeddings")
    names = [f"{name}{part}" for name in ("nonzero_parameters", "ideal_bytes", "file_bytes") for part in parts]
    return {
        "parameters": sizes.parameters,
        "embedding_parameters": sizes.parameters - sizes.parameters_without_embeddings,
        **{name: getattr(sizes, name) for name in names},
    }


def _entries(model: PreTrainedModel) -> int:
    return len(cast(Any, model).get_input_embeddings().weight)


def _renumbered(data: EvaluationSet, structure: Structure) -> EvaluationSet:
    """The evaluation set in the vocabulary that is left."""
    ids = {"input_ids", "labels"} if data.predicts_tokens else {"input_ids"}
    batch = {
        name: renumbered(tensor, structure.tokens) if name in ids else tensor for name, tensor in data.batch.items()
    }
    return replace(data, batch=batch)


def _embedding_bits(quantize: Method | None) -> float:
    if not isinstance(quantize, MatrixMethod) or not quantize.embeddings:
        return 32
    return getattr(quantize.of_embeddings(), "bits", 32)


def _no_number(loss: float, key: str, value: object) -> UserError:
    return UserError(key, value, f"one whose model has a finite loss: this one's is {loss}")


def _counts(structure: Structure) -> dict[str, Any]:
    """What is left of the shapes, for the record: the vocabulary as its size."""
    tokens = {} if structure.tokens is None else {"tokens": len(structure.tokens.kept)}
    return structure.to_json() | tokens


def standard_error(row_values: Tensor) -> float:
    """Standard error of the mean of values of rows [rows], which are drawn independently; 0 for a single row."""
    return float(row_values.double().std() / math.sqrt(len(row_values))) if len(row_values) > 1 else 0.0
