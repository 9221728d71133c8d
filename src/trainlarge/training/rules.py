"""How the learning rate and the initial weights follow from the width, so that one base rate serves a whole grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trainlarge.errors import UserError

INIT_SCALE = 0.68


def init_std(width: int) -> float:
    """Standard deviation of the initial weights: ``0.68 / sqrt(width)``.

    The 1/sqrt(fan-in) of LeCun et al. 1998, with a factor measured here: ModernBERT with it (0.06 at width 128) leaves
    the loss plateau of masked language modelling within 300 steps at widths 64 to 256, where the library's 0.02 stays
    on it (validation loss 3.99 against 5.76 after 500 steps at width 128, depth 2, rate 4e-3).
    """
    return INIT_SCALE / math.sqrt(width)


def peak_lr(optim: dict[str, Any], width: int) -> float:
    """Peak learning rate of a model of ``width`` by the rule ``optim.lr_rule``.

    Raises:
        UserError: for a rule that does not exist.
    """
    rule = LR_RULES.get(optim["lr_rule"])
    if rule is None:
        raise UserError("optim.lr_rule", optim["lr_rule"], ", ".join(LR_RULES))
    return rule(optim["lr"], optim["base_width"], width)


def _inverse_sqrt_width(base: float, base_width: int, width: int) -> float:
    """``lr * sqrt(base_width / width)``: measured here at widths 64 to 256, where a base rate of 3e-3 at width 128 was
    among the best of {2e-3, 3e-3, 4e-3} and above 4e-3 training did not leave the plateau."""
    return base * math.sqrt(base_width / width)


def _constant(base: float, base_width: int, width: int) -> float:
    """``lr`` at every width: as Li et al. 2020, who did not tune the rate when the size changed."""
    return base


def _inverse_width(base: float, base_width: int, width: int) -> float:
    """``lr * base_width / width``: what muP asks for hidden matrices (Yang et al. 2022, arXiv 2203.03466), here for all
    tensors alike and without the rest of muP."""
    return base * base_width / width


def _mup(base: float, base_width: int, width: int) -> float:
    """``lr``, the rate of embeddings, norms and biases at every width. Hidden matrices get ``base_width / width`` of
    it, and initial values, output and scores change too: ``trainlarge.training.width`` (Yang et al. 2022)."""
    return base


LR_RULES: dict[str, Callable[[float, int, int], float]] = {
    "inverse_sqrt_width": _inverse_sqrt_width,
    "inverse_width": _inverse_width,
    "constant": _constant,
    "mup": _mup,
}
