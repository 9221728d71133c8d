"""The evaluation set: fixed rows with fixed masks, the same for every cell on the same data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trainlarge.data.blocks import Blocks, packed, spread_indices
from trainlarge.data.documents import documents_at
from trainlarge.data.masking import mask_tokens, masked_count
from trainlarge.data.prepare import PreparedData

MASK_SEED = 2002_11794
"""Seed of the evaluation masks: a constant, whatever a cell's seed is."""


@dataclass(frozen=True)
class EvaluationSet:
    """Masked rows with fixed masks."""

    inputs: Tensor
    """Ids that the model sees, shape [rows, sequence_length] int64."""
    positions: Tensor
    """Positions to predict, ascending in each row, shape [rows, count] int64."""
    labels: Tensor
    """Ids that stood there, shape [rows, count] int64."""
    fingerprint: str
    """First 16 hex digits of SHA-256 over the three tensors: cells compare only where it is equal."""
    documents: Tensor | None = None
    """Document of each position to predict, shape [rows, count] int64; None: each row is one of its own."""


def evaluation_set(prepared: PreparedData, sequence_length: int, rows: int, mask_rate: float) -> EvaluationSet:
    """Evaluation set of at most ``rows`` blocks, spread evenly over the validation tokens.

    Fewer rows where the validation split has fewer blocks. Masks are drawn on the CPU from ``MASK_SEED``.

    Raises:
        UserError: the validation split is shorter than one block, or ``mask_rate`` is not in (0, 1].
    """
    blocks = packed(prepared.validation, sequence_length)
    found = _masked(prepared, spread(blocks, rows), mask_rate)
    # A document may be longer than a row, and a row may hold parts of several documents.
    starts = spread_indices(len(blocks), rows)[:, None] * sequence_length
    documents = documents_at(prepared.validation, prepared.sep_id, starts + found.positions.numpy())
    return replace(found, documents=torch.from_numpy(documents))


def training_sample(prepared: PreparedData, blocks: Blocks, rows: int, mask_rate: float) -> EvaluationSet:
    """At most ``rows`` of the training blocks in use, spread evenly and masked as the evaluation set is.

    What the model loses there less than on the evaluation set, it has from having seen them.

    Raises:
        UserError: ``mask_rate`` is not in (0, 1].
    """
    return _masked(prepared, blocks.spread(rows), mask_rate)


def _masked(prepared: PreparedData, rows: np.ndarray, mask_rate: float) -> EvaluationSet:
    ids = torch.from_numpy(rows)
    masked = mask_tokens(
        ids,
        masked_count(mask_rate, ids.shape[1]),
        torch.Generator().manual_seed(MASK_SEED),
        mask_id=prepared.mask_id,
        vocab_size=prepared.vocab_size,
        first_regular_id=prepared.first_regular_id,
    )
    return EvaluationSet(*masked, fingerprint=_fingerprint(*masked))


def spread(blocks: np.ndarray, rows: int) -> np.ndarray:
    """At most ``rows`` of the blocks [blocks, sequence_length] at even distances, in order, int64."""
    return blocks[spread_indices(len(blocks), rows)].astype(np.int64)


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]
