"""How many positions of a row are masked; without torch, so that a budget becomes steps before anything starts."""

from __future__ import annotations

from trainlarge.errors import UserError


def masked_count(rate: float, sequence_length: int) -> int:
    """Masked positions per row: ``rate`` of the length, rounded, at least one.

    Raises:
        UserError: ``rate`` is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise UserError("task.mask_rate", rate, "a number above 0, at most 1")
    return max(1, round(rate * sequence_length))
