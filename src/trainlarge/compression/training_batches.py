"""Calibration data of a checkpoint: rows of the text that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from trainlarge.data.blocks import Blocks
from trainlarge.data.masking import mask_tokens, masked_count
from trainlarge.data.prepare import PreparedData

SEED = 2306_11695
"""Seed of the choice of rows and of their masks: a constant, whatever a cell's seed is."""

IGNORED = -100
"""Label of a position that is not to be predicted, as Hugging Face models read it."""

ROWS = 16
"""Rows of a batch."""


def training_batches(prepared: PreparedData, config: dict[str, Any]) -> Iterator[dict[str, Tensor]]:
    """Batches of ``input_ids`` and ``labels`` [rows, sequence_length] of the training split, masked as for evaluation.

    Args:
        prepared: the data of the train cell.
        config: the configuration of the train cell.
    """
    length = config["data"]["sequence_length"]
    blocks = Blocks(prepared.train, length, SEED, config["data"]["fraction"])
    generator = torch.Generator().manual_seed(SEED)
    for step in range(len(blocks) // ROWS or 1):
        ids = torch.from_numpy(blocks.batch(step, min(ROWS, len(blocks))))
        masked = mask_tokens(
            ids,
            masked_count(config["task"]["evaluation_mask_rate"], length),
            generator,
            mask_id=prepared.mask_id,
            vocab_size=prepared.vocab_size,
            first_regular_id=prepared.first_regular_id,
        )
        labels = torch.full_like(ids, IGNORED).scatter_(1, masked.positions, masked.labels)
        yield {"input_ids": masked.inputs, "labels": labels}
