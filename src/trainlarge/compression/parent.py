"""Checks that the checkpoint of a compress job has not changed: its files by digest, its loss by its record."""

from __future__ import annotations

from dataclasses import replace

from trainlarge.compression.checkpoint import Checkpoint, unchanged_checkpoint
from trainlarge.config.schema import CompressConfig
from trainlarge.errors import UserError
from trainlarge.launch.job import prove_checkpoint
from trainlarge.sweep.cell import ID_PATTERN
from trainlarge.sweep.store import CellFolder, Study
from trainlarge.tasks.evaluation import EvaluationSet

TOLERANCE = 1e-3
"""Nats by which the loss of the same weights may differ between two devices, numbers of threads and versions."""


def proven_parent(config: CompressConfig, study: Study) -> Checkpoint:
    """The checkpoint of a frozen compress configuration.

    A train cell with a damaged checkpoint counts as failed from then on (``prove_checkpoint``).

    Raises:
        UserError: when it is not what it was.
    """
    if ID_PATTERN.fullmatch(config.checkpoint) and (folder := study.folder("train", config.checkpoint)).is_done():
        prove_checkpoint(folder)
    checkpoint = unchanged_checkpoint(config, study)
    weights = study.folder("train", checkpoint.id).weights_digest() if checkpoint.is_cell else None
    return replace(checkpoint, weights=weights)


def check_dense(loss: float, data: EvaluationSet, parent: CellFolder) -> None:
    """Compare the loss of a train cell's weights, before compression, with that of its record.

    Args:
        loss: nats per prediction.
        data: what it was evaluated on.
        parent: the train cell.

    Raises:
        UserError: when they differ by more than ``TOLERANCE``, or the evaluation sets differ.
    """
    record = parent.train_record()
    recorded, known = record.scores.get("loss"), record.data.evaluation_fingerprint
    if data.fingerprint != known:
        allowed = f"{known}, that of train cell {parent.id}; to make it again: {parent.redo_command}"
        raise UserError("evaluation_fingerprint", data.fingerprint, allowed)
    if recorded is not None and not abs(loss - recorded) <= TOLERANCE:
        allowed = (
            f"weights with the loss of the record, {recorded:.6g} nats and not {loss:.6g}; "
            f"to make them again: {parent.redo_command}"
        )
        raise UserError(str(parent.checkpoint / "model.safetensors"), "changed", allowed)
