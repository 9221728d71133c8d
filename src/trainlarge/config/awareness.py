"""Whether the steps of a recipe fit together in which a training is aware of the quantization to come."""

from __future__ import annotations

from collections.abc import Sequence

from trainlarge.config.method import METHODS, Method
from trainlarge.config.quantize import Uniform
from trainlarge.config.recover import QUANTIZING, Recovery
from trainlarge.errors import UserError

NEEDED = (
    "a range that is fitted (minmax, percentile, mse, sigma) without recover.quantize_aware above 0 before it, and "
    "with recover.trains=norms_and_biases"
)


def check_awareness(steps: Sequence[Method]) -> None:
    """Refuse a training that is aware of what cannot be trained with, and a learned range that nothing learns.

    Args:
        steps: the methods of a recipe in their order.

    Raises:
        UserError: naming the key.
    """
    is_learned = False
    for index, step in enumerate(steps):
        if isinstance(step, Recovery) and step.quantize_aware:
            _check_later(step, steps[index + 1 :])
            is_learned = step.trains == "all"
        if isinstance(step, Uniform) and step.is_learned and not is_learned:
            raise UserError("quantize.range", step.range, NEEDED)


def _check_later(recover: Recovery, later: Sequence[Method]) -> None:
    key, share = "recover.quantize_aware", recover.quantize_aware
    if not later:
        raise UserError(key, share, f"0 where no step of {' or '.join(QUANTIZING)} comes after recover")
    for step in later:
        if step.slot not in QUANTIZING:
            raise UserError(key, share, f"0 where {step.slot} comes after recover: only {' and '.join(QUANTIZING)} may")
        if not step.while_training:
            names = ", ".join(name for name, kind in METHODS[step.slot].items() if kind.while_training)
            raise UserError(key, share, f"0 with {step.slot}.name={step.name}; above 0 with {names}")
