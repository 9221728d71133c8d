"""Loss and accuracy on the fixed evaluation set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from trainlarge.data.evaluation import EvaluationSet
from trainlarge.models.forward import masked_logits

BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Device -> most tokens of a forward pass. On the CPU 16,384 took 1.2 to 1.4 times as long from 64 x 2 to 512 x 8,
since the C library returns blocks above 32 MB to the system each time, and several times the memory. Not measured on a
GPU."""
BATCH_NUMBERS = {"cpu": 1024 * 768}
"""Device -> most tokens times width, where wide models take fewer tokens: 1,024 at 768 x 12 took as long as 2,048, and
half the memory."""


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts the masked tokens of the evaluation set."""

    loss: float
    """Mean cross entropy in nats per masked token."""
    accuracy: float
    """Share of masked tokens predicted exactly."""
    token_losses: Tensor
    """Cross entropy of each masked token, [rows, count], fp32, on the CPU."""

    @property
    def row_losses(self) -> Tensor:
        """Mean cross entropy of each row, [rows], fp32."""
        return self.token_losses.double().mean(1).float()


def perplexity(loss: float) -> float | None:
    """exp(loss) of a loss in nats per token; None where that is no finite number, as above 709 nats."""
    try:
        found = math.exp(loss)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def batch_rows(model: PreTrainedModel, length: int) -> int:
    """Rows of ``length`` tokens that a forward pass of ``model`` takes on the device where it is."""
    device, width = model.device.type, getattr(model.config, "hidden_size", 1)
    tokens = min(BATCH_TOKENS[device], BATCH_NUMBERS.get(device, math.inf) // width)
    return max(1, int(tokens) // length)


@torch.no_grad()
def evaluate(model: PreTrainedModel, data: EvaluationSet, forward: Callable[..., Tensor] = masked_logits) -> Evaluation:
    """Evaluate in fp32, without dropout and whatever autocast is on; the model's mode is left as it was."""
    was_training = model.training
    model.eval()
    device = model.device
    rows = batch_rows(model, data.inputs.shape[1])
    # Points of a curve are evaluated within a training step, which Lightning runs under autocast.
    with torch.autocast(device.type, enabled=False):
        parts = [
            _batch(
                model,
                forward,
                *(tensor[start : start + rows].to(device) for tensor in (data.inputs, data.positions, data.labels)),
            )
            for start in range(0, len(data.inputs), rows)
        ]
    model.train(was_training)
    losses = torch.cat([losses for losses, _ in parts])
    right = torch.cat([right for _, right in parts])
    return Evaluation(losses.double().mean().item(), right.double().mean().item(), losses.cpu())


def _batch(
    model: PreTrainedModel, forward: Callable[..., Tensor], inputs: Tensor, positions: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses and hits of a batch, each [rows, m]."""
    logits = forward(model, inputs, positions).float()
    losses = cross_entropy(logits, labels.flatten(), reduction="none")
    return losses.view_as(labels), (logits.argmax(-1) == labels.flatten()).view_as(labels)
