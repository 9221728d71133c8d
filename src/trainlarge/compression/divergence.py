"""How much the predictions of a model change when one of its matrices is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainlarge.compression.attention_masks import counted
from trainlarge.compression.calibration import Calibration, evaluating, first_rows, forward, placed
from trainlarge.compression.model_tensors import load_weights
from trainlarge.errors import UserError
from trainlarge.tasks.packed_text import IGNORED

Divergence = Callable[[str, Tensor], float]
"""(name of a matrix, what takes its place) -> mean KL(p || p') in nats over the positions that count."""


@contextmanager
def measuring_divergence(calibration: Calibration, rows: int, tensors: Mapping[str, Tensor]) -> Iterator[Divergence]:
    """Measure how the predictions of a model with the matrices ``tensors`` change when one of them is replaced.

    Args:
        calibration: model and batches; the weights of the snapshot are restored in the end.
        rows: how many rows of the batches are used, from the first one on.
        tensors: name -> matrix, also where it differs from the snapshot.

    Raises UserError for a model that gives no logits, and where there is no row.
    """
    model = calibration.model
    batches = list(first_rows(calibration.batches(), rows))
    load_weights(model, calibration.weights.tensors)
    try:
        with evaluating(model), torch.no_grad():
            entries = model.state_dict(keep_vars=True)
            for name, tensor in tensors.items():
                # A copy: a model of other shapes may hold the tensors of the snapshot themselves.
                entries[name].data = tensor.to(entries[name].device, entries[name].dtype, copy=True)
            before = [_logits(model, batch) for batch in batches]

            def divergence(name: str, tensor: Tensor) -> float:
                """Mean over positions of KL(before || after), in nats, with ``tensor`` in the place of ``name``."""
                entries[name].copy_(tensor)
                after = (_logits(model, batch) for batch in batches)
                sums = [_sum_of_divergences(*pair) for pair in zip(before, after, strict=True)]
                entries[name].copy_(tensors[name])
                return sum(sums) / max(1, sum(map(len, before)))

            yield divergence
    finally:
        load_weights(model, calibration.weights.tensors)


def _sum_of_divergences(before: Tensor, after: Tensor) -> float:
    """The sum over positions of KL(p || p') of logits; in float64, because it may be far smaller than a logit."""
    log_before, log_after = (logits.double().log_softmax(-1) for logits in (before, after))
    return float(nn.functional.kl_div(log_after, log_before, reduction="sum", log_target=True))


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """float32 [positions, entries], at the positions with a label, or at all where the attention mask is 1."""
    inputs = placed(batch, model)
    logits = getattr(forward(model, inputs), "logits", None)
    if logits is None:
        raise UserError("quantize.sensitivity", "model", "layer for a model without logits")
    mask = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
    return counted(logits, inputs["labels"] != IGNORED if "labels" in inputs else mask).float()
