"""Weights that are pruned after they were quantized stay codes."""

from __future__ import annotations

from dataclasses import replace

import torch

from trainlarge.compression.forms import Affine, Form, Plain


def recoded(before: Form, after: Form) -> Form:
    """``after``, as codes where it is nothing but codes of ``before`` of which some became 0; else as it is.

    The non-zero weights are then those that are not 0 now, also where rounding made them 0.
    """
    if not isinstance(before, Affine) or not isinstance(after, Plain):
        return after
    is_zero = after.values == 0
    if not torch.equal(before.dense().masked_fill(is_zero, 0.0), after.values):
        return after
    rows = before.codes.view(len(before.step), -1)
    codes = torch.where(is_zero.view_as(rows), before.zeros(), rows).view_as(before.codes)
    return replace(before, codes=codes, nonzero=int(torch.count_nonzero(after.values)))
