"""The record of a compress cell."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypedDict

from torch import Tensor

from trainlarge.compression.compressed import Compressed
from trainlarge.compression.layout.shapes import Structure
from trainlarge.compression.layout.tokens import removed_share
from trainlarge.compression.loaded_checkpoint import LoadedCheckpoint
from trainlarge.compression.paired_errors import PairedErrors
from trainlarge.compression.stored.encodings import PACKING
from trainlarge.compression.stored.sizes import Sizes
from trainlarge.compression.stored.zstd import zstd_bytes
from trainlarge.compression.training import NO_TRAINING, TrainingCost
from trainlarge.compression.weights import Weights
from trainlarge.config.group import Plain
from trainlarge.config.method import MatrixMethod
from trainlarge.config.plain import to_plain
from trainlarge.config.recover import PARENT_AS_TEACHER
from trainlarge.launch.job import RunningJob
from trainlarge.machine.provenance import origin, software
from trainlarge.models.weight_error import WeightError, total_relative_squared_error
from trainlarge.sweep.cell import Cell
from trainlarge.sweep.records import RECORD_SCHEMAS, CompressRecord, Environment, EvaluationData, Provenance
from trainlarge.tasks.evaluation import EvaluatedText, Evaluation, perplexity, texts_json


@dataclass(frozen=True, eq=False)
class RecipeResult:
    """What one recipe gave."""

    cell: Cell
    """Its cell."""
    compressed: Compressed
    """The compressed model; its packed file is written."""
    evaluation: Evaluation
    """Its evaluation."""
    texts: Mapping[str, EvaluatedText]
    """What each of ``data.evaluations`` gave."""
    errors: Mapping[str, WeightError]
    """Name of a matrix -> how much it was changed."""
    started: float
    """When the job began with it, in seconds since 1970."""


class _Recipe(TypedDict):
    recipe: Mapping[str, Plain]
    description: str
    order: list[str]
    sparsity: float
    pruned_share: float | None
    bits: float
    embedding_bits: float
    activation_bits: float


class _Losses(TypedDict):
    perplexity: float | None
    dense_loss: float
    loss_increase: float
    loss_standard_error: float
    increase_standard_error: float
    document_standard_error: float
    increase_document_standard_error: float
    loss_increase_low: float | None
    loss_increase_high: float | None


class _Scores(TypedDict):
    dense_scores: Mapping[str, float]
    changes: Mapping[str, Mapping[str, float | None]]
    right_to_wrong: int | None
    wrong_to_right: int | None
    mcnemar_p: float | None


class _Counts(TypedDict):
    parameters: int
    embedding_parameters: int
    nonzero_parameters: int
    nonzero_parameters_without_embeddings: int
    ideal_bytes: int
    ideal_bytes_without_embeddings: int
    dense_bytes: int
    file_bytes: int
    file_bytes_without_embeddings: int
    packing: int


class _Recovery(TypedDict):
    recover_steps: int
    recover_flops: int
    recover_seconds: float
    recover_precision: str | None
    recover_goal: float | None
    recover_score: float | None
    recover_reached: bool | None
    recover_teacher: str | None
    recover_teacher_flops: int | None
    recover_layer_map: str | None


class _Origin(TypedDict):
    data: EvaluationData
    environment: Environment
    provenance: Provenance


def compress_record(
    job: RunningJob, checkpoint: LoadedCheckpoint, result: RecipeResult, was_shared: bool
) -> CompressRecord:
    """The result of a compress cell.

    Args:
        job: the job that computed it.
        checkpoint: what was compressed.
        result: what the recipe gave.
        was_shared: whether other work ran on the device.
    """
    cell, compressed = result.cell, result.compressed
    structure = compressed.left.structure
    labels = checkpoint.evaluation_set.labels
    paired = PairedErrors.of(checkpoint.dense, result.evaluation, checkpoint.documents, labels)
    whole, body = zstd_bytes(job.folder(cell.id).packed, compressed.left.embeddings)
    coded, coded_body = compressed.coded_bytes
    return CompressRecord(
        schema=RECORD_SCHEMAS["compress"],
        stage="compress",
        cell=cell.id,
        study=job.study.name,
        parent=checkpoint.parent.id,
        checkpoint_weights=checkpoint.parent.weights,
        **_recipe(compressed, checkpoint.weights),
        structure=_shapes(structure),
        unknown_share=removed_share(checkpoint.evaluation_set.tokens, structure.tokens),
        scores=result.evaluation.metrics,
        **_losses(checkpoint, result.evaluation, paired),
        **_scores(checkpoint.dense, paired),
        evaluations=texts_json(result.texts),
        **_counts(compressed.sizes),
        nearly_lost=", ".join(compressed.nearly_lost),
        entropy_bits=compressed.sizes.entropy_bits,
        coded_bytes=coded,
        coded_bytes_without_embeddings=coded_body,
        zstd_bytes=whole,
        zstd_bytes_without_embeddings=body,
        relative_squared_error=total_relative_squared_error(result.errors.values()),
        **_recovery(compressed.training or NO_TRAINING, checkpoint.parent.id),
        seconds=time.time() - result.started,
        **_origin(job, checkpoint, result, was_shared),
        config=to_plain(cell.config),
    )


def _shapes(structure: Structure) -> dict[str, Plain]:
    """What is left of the shapes, the vocabulary as its size."""
    left = structure.to_json()
    if structure.tokens is not None:
        left["tokens"] = len(structure.tokens.kept)
    return left


def _recipe(compressed: Compressed, weights: Weights) -> _Recipe:
    """The recipe, and what its methods do to weights in numbers."""
    recipe, whole, pruned = compressed.recipe, weights.float_bits, compressed.pruned_share
    return {
        "recipe": recipe.to_json(),
        "description": recipe.describe(),
        "order": list(recipe.order or ()),
        "sparsity": getattr(recipe.prune, "sparsity", pruned or 0.0),
        "pruned_share": pruned,
        "bits": getattr(recipe.quantize, "bits", whole),
        "embedding_bits": getattr(MatrixMethod.on_embeddings(recipe.quantize), "bits", whole),
        "activation_bits": getattr(recipe.activations, "bits", 32),
    }


def _losses(checkpoint: LoadedCheckpoint, evaluation: Evaluation, paired: PairedErrors) -> _Losses:
    """Losses of the compressed model and of the checkpoint, with their standard errors."""
    dense, documents = checkpoint.dense, checkpoint.documents
    return {
        "perplexity": perplexity(evaluation.loss),
        "dense_loss": dense.loss,
        "loss_increase": evaluation.loss - dense.loss,
        "loss_standard_error": standard_error(evaluation.row_losses),
        "increase_standard_error": standard_error(evaluation.row_losses - dense.row_losses),
        "document_standard_error": documents.standard_error(evaluation.losses),
        "increase_document_standard_error": documents.standard_error(evaluation.losses - dense.losses),
        "loss_increase_low": paired.loss.low,
        "loss_increase_high": paired.loss.high,
    }


def _scores(dense: Evaluation, paired: PairedErrors) -> _Scores:
    """The scores before compression, and how they and the predictions changed."""
    turned = paired.turned
    return {
        "dense_scores": dense.metrics,
        "changes": {name: asdict(change) for name, change in paired.scores.items()},
        "right_to_wrong": turned.right_to_wrong if turned else None,
        "wrong_to_right": turned.wrong_to_right if turned else None,
        "mcnemar_p": paired.mcnemar_p,
    }


def standard_error(row_values: Tensor) -> float:
    """Standard error of the mean of values of rows [rows], which are drawn independently; 0 for a single row."""
    return float(row_values.double().std() / math.sqrt(len(row_values))) if len(row_values) > 1 else 0.0


def _counts(sizes: Sizes) -> _Counts:
    """Parameters and bytes, each with and without embeddings, and by which choice of encodings."""
    return {
        "parameters": sizes.parameters,
        "embedding_parameters": sizes.parameters - sizes.parameters_without_embeddings,
        "nonzero_parameters": sizes.nonzero_parameters,
        "nonzero_parameters_without_embeddings": sizes.nonzero_parameters_without_embeddings,
        "ideal_bytes": sizes.ideal_bytes,
        "ideal_bytes_without_embeddings": sizes.ideal_bytes_without_embeddings,
        "dense_bytes": sizes.dense_bytes,
        "file_bytes": sizes.file_bytes,
        "file_bytes_without_embeddings": sizes.file_bytes_without_embeddings,
        "packing": PACKING,
    }


def _recovery(training: TrainingCost, parent: str) -> _Recovery:
    """What training in the recipe took, and who taught."""
    target, teacher = training.target, training.teacher
    taught_by = parent if teacher and teacher.id == PARENT_AS_TEACHER else teacher.id if teacher else None
    return {
        "recover_steps": training.steps,
        "recover_flops": training.flops,
        "recover_seconds": training.seconds,
        "recover_precision": training.precision,
        "recover_goal": target.goal if target else None,
        "recover_score": target.score if target else None,
        "recover_reached": target.is_reached if target else None,
        "recover_teacher": taught_by,
        "recover_teacher_flops": teacher.flops if teacher else None,
        "recover_layer_map": teacher.layer_map if teacher else None,
    }


def _origin(job: RunningJob, checkpoint: LoadedCheckpoint, result: RecipeResult, was_shared: bool) -> _Origin:
    """What it was evaluated on, how and where it was computed, and by what."""
    # Recipes are evaluated in fp32, whatever the precision of recovery training is.
    computed = {**checkpoint.implementation.to_json(), "precision": "fp32"}
    sharing = {"shared": was_shared, "per_device": job.resources.jobs_per_device}
    return {
        "data": EvaluationData(
            fingerprint=checkpoint.parent.data.known_fingerprint,
            evaluation_fingerprint=checkpoint.evaluation_set.fingerprint,
            evaluation_documents=checkpoint.documents.count,
            effective_documents=checkpoint.documents.effective,
        ),
        "environment": Environment.from_json({**computed, **sharing, "software": {**software()}}),
        "provenance": origin(job.command, result.started),
    }
