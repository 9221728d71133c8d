"""Whether the steps of a recipe fit together in which weights go back to what they were before."""

from __future__ import annotations

from collections.abc import Sequence

from trainlarge.config.method import Method
from trainlarge.config.recover import NO_REWIND, Recovery
from trainlarge.errors import UserError


def check_rewinding(steps: Sequence[Method]) -> None:
    """Refuse to go back to weights of another shape, or past what was quantized.

    Args:
        steps: the methods of a recipe in their order.

    Raises:
        UserError: naming the key.
    """
    for index, step in enumerate(steps):
        if isinstance(step, Recovery) and step.rewinds:
            for before in steps[:index]:
                if before.slot != "prune":
                    allowed = f"{NO_REWIND} where {before.slot} comes before recover: only prune may"
                    raise UserError("recover.rewind", step.rewind, allowed)
