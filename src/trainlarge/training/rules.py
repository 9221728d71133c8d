"""How the learning rate follows from width and batch, and initial weights from the width: one base rate for a grid."""

from __future__ import annotations

import math
from collections.abc import Callable

from trainlarge.config.optim import BatchRule, LrRule, OptimConfig
from trainlarge.errors import UserError

INIT_SCALE = 0.68


def init_std(width: int) -> float:
    """Standard deviation of the initial weights: ``0.68 / sqrt(width)``.

    The 1/sqrt(fan-in) of LeCun et al. 1998, with a factor measured here: ModernBERT with it (0.06 at width 128) leaves
    the loss plateau of ``task=mlm`` within 300 steps at widths 64 to 256, where the library's 0.02 stays
    on it (validation loss 3.99 against 5.76 after 500 steps at width 128, depth 2, rate 4e-3).
    """
    return INIT_SCALE / math.sqrt(width)


def peak_lr(optim: OptimConfig, width: int) -> float:
    """Peak learning rate of a model of ``width``: ``lr`` by ``optim.batch_rule``, then by ``optim.lr_rule``.

    Raises:
        UserError: for a batch that is not in the table.
    """
    base = BATCH_RULES[optim.batch_rule](optim)
    return LR_RULES[optim.lr_rule](base, optim.base_width, width)


def _inverse_sqrt_width(base: float, base_width: int, width: int) -> float:
    """``lr * sqrt(base_width / width)``, for which a base rate of 3e-3 at width 128 is measured.

    At widths 64 to 256 it was among the best of {2e-3, 3e-3, 4e-3}. With a base rate above 4e-3, widths 128 and 256 did
    not leave the plateau; width 64 trains well at 8e-3, too (docs/batch_size.md).
    """
    return base * math.sqrt(base_width / width)


def _constant(base: float, _base_width: int, _width: int) -> float:
    """``lr`` at every width: as Li et al. 2020, who did not tune the rate when the size changed."""
    return base


def _inverse_width(base: float, base_width: int, width: int) -> float:
    """``lr * base_width / width``: what muP asks for hidden matrices.

    Here it is for all tensors alike and without the rest of muP (Yang et al. 2022, arXiv 2203.03466).
    """
    return base * base_width / width


def _mup(base: float, _base_width: int, _width: int) -> float:
    """``lr``, the rate of embeddings, norms and biases at every width.

    Hidden matrices get ``base_width / width`` of it, and initial values, output and scores change too:
    ``trainlarge.training.width`` (Yang et al. 2022).
    """
    return base


LR_RULES: dict[LrRule, Callable[[float, int, int], float]] = {
    "inverse_sqrt_width": _inverse_sqrt_width,
    "inverse_width": _inverse_width,
    "constant": _constant,
    "mup": _mup,
}


def _same(optim: OptimConfig) -> float:
    """``lr`` at every batch."""
    return optim.lr


def _sqrt_batch(optim: OptimConfig) -> float:
    """``lr * sqrt(batch / base_batch)`` (Malladi et al. 2022, arXiv 2205.10287).

    With it the noise of Adam's steps over a number of tokens stays the same while the batch is small.
    """
    return optim.lr * math.sqrt(optim.batch / optim.base_batch)


def _linear_batch(optim: OptimConfig) -> float:
    """``lr * batch / base_batch``: the same for plain SGD (Goyal et al. 2017, arXiv 1706.02677)."""
    return optim.lr * optim.batch / optim.base_batch


def _table(optim: OptimConfig) -> float:
    """The rate that ``batch_lr`` gives for the batch, as Li et al. 2020 tuned one for each."""
    rates = {batch: float(rate) for batch, rate in optim.batch_lr}
    if optim.batch not in rates:
        allowed = ", ".join(map(str, rates)) or "given in optim.batch_lr"
        raise UserError("optim.batch", optim.batch, f"{allowed}, with optim.batch_rule=table")
    return rates[optim.batch]


BATCH_RULES: dict[BatchRule, Callable[[OptimConfig], float]] = {
    "constant": _same,
    "sqrt": _sqrt_batch,
    "linear": _linear_batch,
    "table": _table,
}
