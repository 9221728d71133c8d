"""Weights that are pruned after they were quantized stay codes."""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor

from trainlarge.compression.stored.bits import pack_mask
from trainlarge.compression.stored.forms import Affine, Codebook, Disjoint, Form, Offset, Plain, Signs
from trainlarge.compression.stored.pattern import nonzero_count


def recoded(before: Form, after: Form) -> Form:
    """``after``, as codes where it is nothing but codes of ``before`` of which some became 0; else as it is.

    The non-zero weights are then those that are not 0 now, also where rounding made them 0.
    """
    if isinstance(before, Plain) or not isinstance(after, Plain):
        return after
    values = after.dense()
    is_zero = values == 0
    if not torch.equal(before.dense().masked_fill(is_zero, 0.0), values):
        return after
    return zeroed(before, is_zero) or after


@singledispatch
def zeroed(form: Form, is_zero: Tensor) -> Form | None:
    """The form with 0 where ``is_zero`` says so, which is everywhere where it is 0 already; None where its codes cannot
    say that."""
    return None


@zeroed.register
def _(form: Plain, is_zero: Tensor) -> Form | None:
    return Plain.pruned(form.dense(), is_zero)


@zeroed.register
def _(form: Affine, is_zero: Tensor) -> Form | None:
    rows = form.codes.view(len(form.step), -1)
    codes = torch.where(is_zero.view_as(rows), form.zeros(), rows).view_as(form.codes)
    return replace(form, codes=codes, nonzero=_left(is_zero))


@zeroed.register
def _(form: Offset, is_zero: Tensor) -> Form | None:
    return replace(form, kept=torch.from_numpy(pack_mask(~is_zero.reshape(-1).numpy())))


@zeroed.register
def _(form: Signs, is_zero: Tensor) -> Form | None:
    return replace(form, signs=form.signs.masked_fill(is_zero, 0), nonzero=_left(is_zero))


@zeroed.register
def _(form: Codebook, is_zero: Tensor) -> Form | None:
    """A book without a 0 gets one in the place of a value that no weight takes any more."""
    zeros, codes = is_zero.view(len(form.book), -1), form.codes.view(len(form.book), -1).long()
    uses = torch.zeros(form.book.shape, dtype=torch.int64).scatter_add_(1, codes, (~zeros).long())
    worth = 2 * (form.book == 0) + 1 * (uses == 0)
    needed = zeros.any(1, keepdim=True)
    if not (worth.any(1, keepdim=True) | ~needed).all():
        return None
    place = worth.argmax(1, keepdim=True)
    book = torch.where(needed, form.book.scatter(1, place, 0.0), form.book)
    return replace(
        form, codes=torch.where(zeros, place, codes).byte().view_as(form.codes), book=book, nonzero=_left(is_zero)
    )


@zeroed.register
def _(form: Disjoint, is_zero: Tensor) -> Form | None:
    body, rest = (zeroed(part, is_zero | (part.dense() == 0)) for part in (form.body, form.rest))
    return Disjoint(body, rest) if body and rest else None


def _left(is_zero: Tensor) -> int:
    return nonzero_count(~is_zero)
