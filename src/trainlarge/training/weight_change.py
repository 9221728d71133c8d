"""How far training moved the weights of a cell that started from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from trainlarge.models.weight_error import WeightError, total_relative_squared_error, weight_errors
from trainlarge.training.context import TrainContext

Changes = Mapping[str, WeightError]
"""Name of a matrix -> how far it was moved."""


def changes_since_start(context: TrainContext, weights: Mapping[str, Tensor]) -> Changes | None:
    """How far each matrix is from its first value: that of the checkpoint, or the initial one of a new head.

    The first weights are made again, since keeping them would take as much memory as the model.

    Args:
        context: of the cell.
        weights: its weights at the end, on any device.

    Returns:
        None for a cell that started from initial weights.
    """
    if context.start is None:
        return None
    first = context.first_model().state_dict()
    matrices = [name for name, tensor in first.items() if tensor.ndim == 2 and tensor.is_floating_point()]
    return weight_errors(first, {name: weights[name].cpu() for name in matrices}, matrices)


def total_change(context: TrainContext, changes: Changes | None) -> float | None:
    """Squared change of all matrices but those of the head over their squared norm; None without changes."""
    if changes is None:
        return None
    prefix = f"{context.loop.module.model.base_model_prefix}."
    return total_relative_squared_error(error for name, error in changes.items() if name.startswith(prefix))
