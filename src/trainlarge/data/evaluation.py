"""The evaluation set: fixed rows with fixed masks, the same for every cell on the same data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainlarge.data.blocks import packed
from trainlarge.data.masking import mask_tokens, masked_count
from trainlarge.data.prepare import PreparedData

MASK_SEED = 2002_11794
"""Seed of the evaluation masks: a constant, whatever a cell's seed is."""


@dataclass(frozen=True)
class EvaluationSet:
    """Masked rows of the validation split."""

    inputs: Tensor
    """Ids that the model sees, shape [rows, sequence_length] int64."""
    positions: Tensor
    """Positions to predict, ascending in each row, shape [rows, count] int64."""
    labels: Tensor
    """Ids that stood there, shape [rows, count] int64."""
    fingerprint: str
    """First 16 hex digits of SHA-256 over the three tensors: cells compare only where it is equal."""


def evaluation_set(prepared: PreparedData, sequence_length: int, rows: int, mask_rate: float) -> EvaluationSet:
    """Evaluation set of at most ``rows`` blocks, spread evenly over the validation tokens.

    Fewer rows where the validation split has fewer blocks. Masks are drawn on the CPU from ``MASK_SEED``.

    Raises:
        UserError: the validation split is shorter than one block, or ``mask_rate`` is not in (0, 1].
    """
    ids = torch.from_numpy(spread(packed(prepared.validation, sequence_length), rows))
    masked = mask_tokens(
        ids,
        masked_count(mask_rate, sequence_length),
        torch.Generator().manual_seed(MASK_SEED),
        mask_id=prepared.mask_id,
        vocab_size=prepared.vocab_size,
        first_regular_id=prepared.first_regular_id,
    )
    return EvaluationSet(*masked, fingerprint=_fingerprint(*masked))


def spread(blocks: np.ndarray, rows: int) -> np.ndarray:
    """At most ``rows`` of the blocks [blocks, sequence_length] at even distances, in order, int64."""
    count = min(rows, len(blocks))
    return blocks[np.arange(count) * len(blocks) // count].astype(np.int64)


def _fingerprint(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]
